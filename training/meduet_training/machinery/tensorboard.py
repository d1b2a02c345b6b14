"""TensorBoard's event files: the same numbers as the log's, as curves, and the panels as pictures."""

from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from napari_meduet.errors import InputError
from napari_meduet.volumes.opening import reason

EVENTS = "tensorboard"


class TensorBoardLog:
    """Curves and pictures of a run in `tensorboard/`.

    Args:
        first_step: the run begins or goes on here; what the folder shows of this step and later ones is of
            steps that are taken again, and TensorBoard drops it.

    Raises:
        InputError: the folder cannot be written, here or at any later call.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes seconds

        with _told(folder):
            self._writer = SummaryWriter(str(folder / EVENTS), purge_step=first_step)
            self._writer.flush()
        self._folder = folder

    def numbers(self, step: int, row: Mapping[str, float]) -> None:
        """A point of each curve; what stands before a slash groups them."""
        with _told(self._folder):
            for name, value in row.items():
                self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """One picture of a row that a slider walks through."""
        with _told(self._folder):
            self._writer.add_image(name, np.asarray(picture), step, dataformats="HWC")
            self._writer.flush()

    def close(self) -> None:
        with _told(self._folder):
            self._writer.close()


@contextmanager
def _told(folder: Path):
    """The system's refusal in a sentence."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder.name}/{EVENTS}: no curves can be written there ({reason(error)}). Make room, or give "
            "a folder that may be written."
        ) from error
