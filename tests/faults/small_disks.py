"""The size of a file system in memory, and what is left of it."""

import os
import subprocess
from pathlib import Path


def resize(disk: Path, size: str) -> None:
    """Give it another size, as in "3m"."""
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


def fill_up(disk: Path, left: int) -> None:
    """Leave so many bytes free, to whole blocks."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    state = os.statvfs(disk)
    filler.write_bytes(bytes(state.f_bavail * state.f_frsize - left))
