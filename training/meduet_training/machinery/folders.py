"""Folders for what a training leaves."""

from pathlib import Path

from napari_meduet.errors import InputError


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
