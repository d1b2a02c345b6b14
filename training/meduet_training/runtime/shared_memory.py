"""Room in /dev/shm, where loader workers put their batches; a container often has 64 MB of it."""

import shutil
from pathlib import Path

from napari_meduet.errors import InputError

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 not a file of ours: where torch puts what processes share


def check_shared_memory(needed: int) -> None:
    """Refuse what would kill a worker in the middle of the run.

    Raises:
        InputError: fewer bytes are free than are needed.
    """
    if not SHARED_MEMORY.is_dir():
        return
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free < needed:
        raise InputError(
            f"{SHARED_MEMORY} has {free / 1e6:.1f} MB free, and the batches that are read ahead take "
            f"{needed / 1e6:.1f} MB: give the container more (docker run --shm-size), or lower "
            "hardware.workers; 0 needs none."
        )
