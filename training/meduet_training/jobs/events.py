"""The events of a job: lines of its log, rows of its metrics, and its status.

Each event carries its position, so that a client that lost the connection can continue where it stopped.
remote/events.py does that. The state of a job is computed in state.py.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from meduet_training.jobs.state import has_ended, status
from meduet_training.jobs.store import METRICS_FILE, Job

Event = dict[str, Any]
POLL_SECONDS = 0.5
STATUS_SECONDS = 10.0  # between two status events; each shows whether the client is still connected


def events(job: Job, offset: int = 0, after_step: int = -1, *, wait: bool = True) -> Iterator[Event]:
    """Yield the events of a job. The last event is its status.

    The events are `{"log": line, "offset": byte after the line}`, `{"metrics": row}` and `{"status": ...}`.

    Args:
        offset: byte of the log file to start at.
        after_step: only metrics of later steps are included.
        wait: whether to continue until the job is over.
    """
    log, metrics = _GrowingFile(job.log, offset), _GrowingFile(job.folder / METRICS_FILE)
    last_status = float("-inf")
    while True:
        is_due = has_ended(job) or time.monotonic() - last_status >= STATUS_SECONDS
        # The status is read before the files: when the job is over, its files are complete.
        found = status(job) if is_due else None
        is_complete = found is not None and (found.is_over or not wait)
        for line in log.new_lines(with_last=is_complete):
            yield {"log": line.decode(errors="replace").rstrip("\r\n"), "offset": log.offset}
        for row in _rows(metrics):
            if row["step"] > after_step:
                after_step = row["step"]
                yield {"metrics": row}
        if found is not None:
            last_status = time.monotonic()
            yield {"status": found.model_dump(mode="json")}
        if is_complete:
            return
        time.sleep(POLL_SECONDS)


class _GrowingFile:
    """The lines of a file that grows. A resumed run replaces its metrics file; then reading starts again."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.offset = offset
        self._path = path
        self._inode: int | None = None

    def new_lines(self, *, with_last: bool = False) -> Iterator[bytes]:
        """Yield the lines since the last call.

        Args:
            with_last: whether to include a last line without a line break, because the file no longer grows.
        """
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            inode = os.fstat(file.fileno()).st_ino
            if self._inode not in (None, inode):
                self.offset = 0
            self._inode = inode
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n") and not with_last:
                    return
                self.offset += len(line)
                yield line


def _rows(metrics: _GrowingFile) -> Iterator[dict[str, Any]]:
    for line in metrics.new_lines():
        try:
            row = json.loads(line)
        except ValueError:  # a killed process left half a row
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield row
