"""A log of rows, one JSON object a line, each with its step; going on doubles none of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meduet_training.runtime.appending import append_whole
from meduet_training.runtime.folders import make_folder
from napari_meduet.pipelines.common.outputs import plain
from napari_meduet.volumes.files import write_atomically


class RowLog:
    """The rows of a file.

    Args:
        last_kept: rows of later steps are of steps that are taken again, and go.
    """

    def __init__(self, path: Path, last_kept: int) -> None:
        make_folder(path.parent)
        self._path = path
        kept = [row for row in read_rows(path) if row["step"] <= last_kept]
        with write_atomically(path, overwrite=True) as temporary:
            temporary.write_text("".join(_line(row) for row in kept), "utf-8")

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; a number that is not finite becomes null.

        Raises:
            InputError: the disk takes no more.
        """
        append_whole(self._path, _line(row).encode())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a log, in order; none where there is no file. A line that a kill cut off is left out."""
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
