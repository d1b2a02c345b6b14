"""Appending to files that grow while a training runs."""

import os
from contextlib import suppress
from pathlib import Path

from napari_meduet.errors import InputError
from napari_meduet.volumes.writing import refusal


def append_or_restore(path: Path, content: bytes) -> None:
    """Append bytes to a file, all of them or none.

    Raises:
        InputError: the disk is full or not writable; the file is unchanged.
    """
    length = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as file:
            file.write(content)
    except OSError as error:
        with suppress(OSError):
            os.truncate(path, length)
        raise InputError(
            f"{path.parent.name}/{path.name}: cannot be written "
            f"({refusal(error, path.parent, len(content))}). Free space or restore the permission; the same "
            "command then goes on from the last checkpoint."
        ) from error
