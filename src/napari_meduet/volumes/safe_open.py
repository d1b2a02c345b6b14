"""The door: a path becomes a regular file that is open, and its name fit for a message.

Nothing here knows what a scan is. A named pipe, a device or a folder never gets past it, and a name that is
not UTF-8 or holds control characters neither breaks a reader nor a terminal.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from napari_meduet.errors import InputError

PathLike = str | bytes | os.PathLike


def shown_name(path: PathLike) -> str:
    """The base name for messages: never the folder (it may name a patient), always printable."""
    name = Path(os.fsdecode(path)).name or "."
    readable = os.fsencode(name).decode("utf-8", errors="replace")
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in readable
    )


@contextmanager
def open_regular(path: PathLike) -> Iterator[FileIO]:
    """The regular file at path, open for unbuffered reading; anything else is an InputError.

    Opened without blocking and judged by its descriptor, so that a pipe with no writer cannot hang us and
    the file judged is the file read.
    """
    name = shown_name(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise InputError(f"{name}: cannot be opened ({reason(error)}).") from error
    with open(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{name}: is a folder; choose a file.")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(
                f"{name}: is not a regular file but a pipe, socket or device; copy it to a file first."
            )
        if status.st_size == 0:
            raise InputError(f"{name}: is empty (0 bytes).")
        yield file


def reason(error: Exception) -> str:
    """What the system said, in its own words without the path."""
    if isinstance(error, OSError) and error.errno is not None:
        if error.errno == errno.ENXIO:
            return "it is a pipe or a device, not a regular file"
        return os.strerror(error.errno).lower()
    return str(error)
