"""Check of the free space in /dev/shm, where data workers put batches; containers often have only 64 MB."""

import shutil
from pathlib import Path

from napari_meduet.errors import InputError

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 torch's place for tensors that processes share


def check_shared_memory(needed: int) -> None:
    """Refuse to start when the batches of the workers would not fit, because a worker would be killed later.

    Args:
        needed: bytes that the prefetched batches take.

    Raises:
        InputError: fewer bytes are free than needed.
    """
    if not SHARED_MEMORY.is_dir():
        return
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free < needed:
        raise InputError(
            f"{SHARED_MEMORY} has {free / 1e6:.1f} MB free, but the prefetched batches take "
            f"{needed / 1e6:.1f} MB. Give the container more (docker run --shm-size), or lower "
            "hardware.workers; 0 workers need none."
        )
