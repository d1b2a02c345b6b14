"""Heartbeats of the ranks of a job, exchanged through the store of torch.distributed.

Each rank writes its step and what it is doing. From these entries each rank finds out which other rank died
or hangs. watchdog.py calls this file from a thread and ends the process.
"""

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from meduet_training.runtime.processes import Process, is_alive, this_process

GOES_ON = "The same command goes on from the newest checkpoint."
COMPUTING = "computing"  # the stage in which a rank waits for other ranks
ReportStage = Callable[[int, str], None]  # called with the step and the name of the stage
SLACK_S = 3.0  # a silent rank is reported this much earlier than a stuck one, because its message says more
STORE_S = 10.0  # timeout of one request to the store


def ignore_stage(step: int, doing: str) -> None:
    """Do nothing; the default where no heartbeat is needed."""


@dataclass
class RankStatus:
    """The last entry of another rank.

    Attributes:
        entry: the content of the entry; empty before the first one.
        received_at: time at which this rank received the entry, by its own clock.
    """

    entry: dict[str, Any]
    received_at: float

    @property
    def process(self) -> Process:
        return Process(**self.entry["process"])

    @property
    def stage(self) -> str:
        return f"at step {self.entry['step']}, {self.entry['doing']}" if self.entry else "not yet started"


class Heartbeat:
    """The state of all ranks of the job, as this rank sees it.

    Args:
        timeout_s: seconds without a new entry after which a rank counts as hanging.
    """

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        # A clone, because a store serves only one thread at a time.
        store = dist.distributed_c10d._get_default_store().clone()  # pyright: ignore[reportAttributeAccessIssue]
        store.set_timeout(timedelta(seconds=STORE_S))
        self._store = dist.PrefixStore("supervision", store)
        self._rank = dist.get_rank()
        self._own = {
            "process": asdict(this_process()),
            "beat": 0,
            "step": 0,
            "doing": "starting",
            "left": None,
        }
        self._stage_began = clock()
        others = (rank for rank in range(dist.get_world_size()) if rank != self._rank)
        self._seen = {rank: RankStatus({}, clock()) for rank in others}

    def report_stage(self, step: int, doing: str) -> None:
        """Record the step and the stage of this rank."""
        self._own |= {"step": step, "doing": doing}
        self._stage_began = self._clock()

    def leave(self, reason: str) -> None:
        """Announce that this rank has ended; `reason` is empty after a regular end."""
        self._own["left"] = reason
        with suppress(RuntimeError):  # the store may already be gone
            self._send()

    def find_failure(self) -> str | None:
        """Return a sentence about a rank that is dead or hangs, or None if all ranks are well."""
        failure = None
        try:
            self._send()
            self._receive()
        except RuntimeError as error:
            failure = str(error).splitlines()[0]
        for rank, seen in self._seen.items():
            if sentence := self._missing(rank, seen):
                return f"{sentence} {GOES_ON}"
        if failure:
            return (
                f"The store of this job does not answer ({failure}), so rank 0 or the launcher is gone; "
                f"rank {self._rank} was {self._stage()}. {GOES_ON}"
            )
        return self._stuck()

    def stages(self) -> str:
        """Return a sentence that names the last known step and stage of every rank."""
        stages = {self._rank: self._stage()} | {rank: seen.stage for rank, seen in self._seen.items()}
        named = ", ".join(f"rank {rank} {stage}" for rank, stage in sorted(stages.items()))
        return f"The ranks wait for each other in vain: {named}."

    def _send(self) -> None:
        self._own["beat"] += 1
        self._store.set(str(self._rank), json.dumps(self._own))

    def _receive(self) -> None:
        known = [rank for rank, seen in self._seen.items() if seen.entry or self._store.check([str(rank)])]
        if not known:
            return
        for rank, content in zip(known, self._store.multi_get([str(rank) for rank in known]), strict=True):
            entry = json.loads(content)
            if entry != self._seen[rank].entry:
                self._seen[rank] = RankStatus(entry, self._clock())

    def _missing(self, rank: int, seen: RankStatus) -> str | None:
        left = seen.entry.get("left")
        if left is not None:
            return f"Rank {rank} ended {seen.stage}: {left}" if left else None
        if seen.entry and is_alive(seen.process) is False:
            return f"Rank {rank} ({seen.process}) was killed {seen.stage}."
        silent_s = self._clock() - seen.received_at
        if silent_s > self._timeout_s:
            name = f"Rank {rank} ({seen.process})" if seen.entry else f"Rank {rank}"
            # A stopped process does not react to SIGTERM, so its launcher would wait for it without end.
            if seen.entry and is_alive(seen.process):
                os.kill(seen.process.pid, signal.SIGKILL)
            return f"{name} hangs: it has been silent for {silent_s:.0f} s, last seen {seen.stage}."
        return None

    def _stuck(self) -> str | None:
        """Return a sentence if this rank has computed for too long, which means that it waits for others."""
        waited_s = self._clock() - self._stage_began
        if self._own["doing"] != COMPUTING or waited_s <= self._timeout_s + SLACK_S:
            return None
        return f"{self.stages()} {GOES_ON}"

    def _stage(self) -> str:
        return f"at step {self._own['step']}, {self._own['doing']}"
