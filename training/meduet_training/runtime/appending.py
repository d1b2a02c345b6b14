"""Files that grow while a training runs."""

import os
from contextlib import suppress
from pathlib import Path

from napari_meduet.errors import InputError
from napari_meduet.volumes.writing import refusal


def append_whole(path: Path, content: bytes) -> None:
    """Add bytes to the end of a file: all of them, or none.

    Raises:
        InputError: the disk is full, or cannot be written; the file is as it was.
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
            f"({refusal(error, path.parent, len(content))}). Make room or give back the permission; the same "
            "command then goes on from the last checkpoint."
        ) from error
