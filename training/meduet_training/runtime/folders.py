"""Output folders of a training."""

import tempfile
from pathlib import Path

from napari_meduet.errors import InputError
from napari_meduet.volumes.safe_open import reason


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents.

    Raises:
        InputError: the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder.name}: this folder cannot be created ({error.strerror}). Choose another one."
        ) from error


def check_writable(folder: Path) -> None:
    """Create a folder if needed, and refuse a read-only one before a long computation starts.

    Raises:
        InputError: the folder cannot be created or is not writable.
    """
    make_folder(folder)
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"{folder.name}: this folder is not writable ({reason(error)}), so no result could be saved. "
            "Choose another folder, or change its permissions."
        ) from error
