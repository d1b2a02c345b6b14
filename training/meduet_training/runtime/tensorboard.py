"""TensorBoard event files: the numbers of the log as curves, and the panels as images.

The writer of torch.utils.tensorboard writes in a thread, where a full disk ends in a traceback. This one
writes in the calling thread and raises an InputError.
"""

import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from meduet_training.runtime.append import append_or_restore
from meduet_training.runtime.folders import make_folder

EVENTS = "tensorboard"
VERSION = "brain.Event:2"  # version of the format; every event file begins with it


class TensorBoardLog:
    """Curves and images of a run in `tensorboard/`.

    Args:
        first_step: the step at which the run begins or resumes. TensorBoard drops older events of this step
            and of later ones, because the run repeats these steps.

    Raises:
        InputError: the folder is not writable, here or at any later call.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        make_folder(folder / EVENTS)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / EVENTS / name
        self._append(0, file_version=VERSION)
        self._append(first_step, session_log=SessionLog(status=SessionLog.START))

    def numbers(self, step: int, row: Mapping[str, float]) -> None:
        """Add a point to each curve; the part of the name before a slash is its group."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
        from torch.utils.tensorboard.summary import scalar

        points = Summary()
        for name, value in row.items():
            points.MergeFrom(scalar(name, value))
        self._append(step, summary=points)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """Add one image under a name; TensorBoard shows the images of a name with a slider over the steps."""
        from torch.utils.tensorboard.summary import image

        self._append(step, summary=image(name, np.asarray(picture), dataformats="HWC"))

    def _append(self, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        event = Event(step=step, wall_time=time.time(), **content)
        RecordWriter(record).write(event.SerializeToString())
        append_or_restore(self._path, record.getvalue())
