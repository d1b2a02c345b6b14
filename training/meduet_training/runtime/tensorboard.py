"""TensorBoard's event files: the same numbers as the log's, as curves, and the panels as pictures.

Torch's own writer writes in a thread, where a full disk ends in a traceback; here a training writes itself.
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

from meduet_training.runtime.appending import append_whole
from meduet_training.runtime.folders import make_folder

EVENTS = "tensorboard"
VERSION = "brain.Event:2"  # of the format, which every file begins with


class TensorBoardLog:
    """Curves and pictures of a run in `tensorboard/`.

    Args:
        first_step: the run begins or goes on here; what the folder shows of this step and later ones is of
            steps that are taken again, and TensorBoard drops it.

    Raises:
        InputError: the folder cannot be written, here or at any later call.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        make_folder(folder / EVENTS)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / EVENTS / name
        self._append(0, file_version=VERSION)
        self._append(first_step, session_log=SessionLog(status=SessionLog.START))

    def numbers(self, step: int, row: Mapping[str, float]) -> None:
        """A point of each curve; what stands before a slash groups them."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
        from torch.utils.tensorboard.summary import scalar

        points = Summary()
        for name, value in row.items():
            points.MergeFrom(scalar(name, value))
        self._append(step, summary=points)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """One picture of a row that a slider walks through."""
        from torch.utils.tensorboard.summary import image

        self._append(step, summary=image(name, np.asarray(picture), dataformats="HWC"))

    def _append(self, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        event = Event(step=step, wall_time=time.time(), **content)
        RecordWriter(record).write(event.SerializeToString())
        append_whole(self._path, record.getvalue())
