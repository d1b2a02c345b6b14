"""How a manifest writes where a scan is."""

import os
from pathlib import Path


def as_written(path: Path, manifest: Path) -> str:
    """Relative to the manifest if both lie in one tree below the root, so that they move together."""
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(manifest)).parent
    common = Path(os.path.commonpath([path, folder]))
    return in_utf8(os.path.relpath(path, folder) if common != Path(common.anchor) else str(path))


def in_utf8(name: str) -> str:
    """A name that any table can hold: what the system could not decode is replaced."""
    return os.fsencode(name).decode("utf-8", errors="replace")
