"""What a job says, as it says it: its log, its metrics and its state, as a row of events.

Every event carries where it stands, so that a listener who lost the connection goes on where it was.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from meduet_training.jobs.record import Job
from meduet_training.jobs.state import has_ended, status

Event = dict[str, Any]
METRICS = "log.jsonl"
POLL_SECONDS = 0.5
ASK_SECONDS = 10.0  # the executor; and at least so often an event, by which a listener's absence is noticed


def events(job: Job, offset: int = 0, after_step: int = -1, *, wait: bool = True) -> Iterator[Event]:
    """What the job said and says; the last event is its status.

    `{"log": line, "offset": byte after it}`, `{"metrics": row}` and `{"status": ...}`.

    Args:
        offset: byte of the log to begin at.
        after_step: metrics of later steps alone.
        wait: until the job is over; otherwise what there is now.
    """
    log, metrics = _Lines(job.log, offset), _Lines(job.folder / METRICS)
    asked = float("-inf")
    while True:
        is_due = has_ended(job) or time.monotonic() - asked >= ASK_SECONDS
        found = status(job) if is_due else None  # before reading: who is over has said everything
        has_said_all = found is not None and (found.state.is_over or not wait)
        for line in log.new(with_last=has_said_all):
            yield {"log": line.decode(errors="replace").rstrip("\r\n"), "offset": log.offset}
        for row in _rows(metrics):
            if row["step"] > after_step:
                after_step = row["step"]
                yield {"metrics": row}
        if found is not None:
            asked = time.monotonic()
            yield {"status": found.model_dump(mode="json")}
        if has_said_all:
            return
        time.sleep(POLL_SECONDS)


class _Lines:
    """The lines of a file that grows, and may be replaced: a run that goes on writes its metrics anew."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.offset = offset
        self._path = path
        self._inode: int | None = None

    def new(self, *, with_last: bool = False) -> Iterator[bytes]:
        """Lines since the last call; one that does not end yet only if it will not grow."""
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


def _rows(metrics: _Lines) -> Iterator[dict[str, Any]]:
    for line in metrics.new():
        try:
            row = json.loads(line)
        except ValueError:  # cut off by a kill
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield row
