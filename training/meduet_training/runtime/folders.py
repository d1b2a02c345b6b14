"""Folders for what a training leaves."""

import tempfile
from pathlib import Path

from napari_meduet.errors import InputError
from napari_meduet.volumes.safe_open import reason


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are missing.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder.name}: no folder can be made there ({error.strerror}); choose another."
        ) from error


def check_writable(folder: Path) -> None:
    """Make a folder if need be, and refuse one that cannot be written to before hours are spent.

    Raises:
        InputError: it cannot.
    """
    make_folder(folder)
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"{folder.name}: cannot be written to ({reason(error)}), so nothing would be kept; choose "
            "another folder, or ask for the permission."
        ) from error
