"""A log in JSON Lines format: one row with its step on each line. A resumed run duplicates no row."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meduet_training.runtime.append import append_or_restore
from meduet_training.runtime.folders import make_folder
from napari_meduet.pipelines.common.outputs import plain
from napari_meduet.volumes.files import write_atomically


class RowLog:
    """A log file that rows are appended to.

    Args:
        last_kept: last step whose rows are kept. Rows of later steps are removed, because a resumed run
            repeats these steps.
    """

    def __init__(self, path: Path, last_kept: int) -> None:
        make_folder(path.parent)
        self._path = path
        kept = [row for row in read_rows(path) if row["step"] <= last_kept]
        with write_atomically(path, overwrite=True) as temporary:
            temporary.write_text("".join(_line(row) for row in kept), "utf-8")

    def append(self, row: Mapping[str, Any]) -> None:
        """Append a row; a number that is not finite becomes null.

        Raises:
            InputError: the disk is full or not writable.
        """
        append_or_restore(self._path, _line(row).encode())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a log in order, or none if there is no file. Truncated lines are skipped."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text("utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(plain(row), allow_nan=False) + "\n"
