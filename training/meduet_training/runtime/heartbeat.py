"""Where every rank of a job is, told through the store that torch keeps for it, and which one is missing."""

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
COMPUTING = "computing"  # what waits for other ranks
At = Callable[[int, str], None]  # is told the step, and what is being done there
SLACK_S = 3.0  # a rank that is silent is told of first, which says more
STORE_S = 10.0  # for an answer of the store


def nowhere(step: int, doing: str) -> None:
    """Tells nobody."""


@dataclass
class Seen:
    """The last news of a rank.

    Attributes:
        words: what it told; empty until it told anything.
        at: when this rank heard it, by its own clock.
    """

    words: dict[str, Any]
    at: float

    @property
    def process(self) -> Process:
        return Process(**self.words["process"])

    @property
    def place(self) -> str:
        return f"at step {self.words['step']}, {self.words['doing']}" if self.words else "not yet started"


class Heartbeat:
    """All ranks of the job as this one sees them."""

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        # A clone, because a store serves one thread at a time.
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
        self._moved = clock()  # when this rank last came to another place
        others = (rank for rank in range(dist.get_world_size()) if rank != self._rank)
        self._seen = {rank: Seen({}, clock()) for rank in others}

    def at(self, step: int, doing: str) -> None:
        """Tell where this rank is."""
        self._own |= {"step": step, "doing": doing}
        self._moved = self._clock()

    def leave(self, why: str) -> None:
        """Tell the others that this rank is done; `why` is empty if that is well."""
        self._own["left"] = why
        with suppress(RuntimeError):  # the store went first
            self._tell()

    def look(self) -> str | None:
        """A sentence about a rank without which the job cannot go on; None while there is none."""
        failure = None
        try:
            self._tell()
            self._listen()
        except RuntimeError as error:
            failure = str(error).splitlines()[0]
        for rank, seen in self._seen.items():
            if sentence := self._missing(rank, seen):
                return f"{sentence} {GOES_ON}"
        if failure:
            return (
                f"The store of this job does not answer ({failure}), so rank 0 or the launcher is gone; "
                f"rank {self._rank} was {self._place()}. {GOES_ON}"
            )
        return self._stuck()

    def places(self) -> str:
        """A sentence about where every rank was last seen."""
        places = {self._rank: self._place()} | {rank: seen.place for rank, seen in self._seen.items()}
        named = ", ".join(f"rank {rank} {place}" for rank, place in sorted(places.items()))
        return f"The ranks wait for each other in vain: {named}."

    def _tell(self) -> None:
        self._own["beat"] += 1
        self._store.set(str(self._rank), json.dumps(self._own))

    def _listen(self) -> None:
        known = [rank for rank, seen in self._seen.items() if seen.words or self._store.check([str(rank)])]
        if not known:
            return
        for rank, content in zip(known, self._store.multi_get([str(rank) for rank in known]), strict=True):
            words = json.loads(content)
            if words != self._seen[rank].words:
                self._seen[rank] = Seen(words, self._clock())

    def _missing(self, rank: int, seen: Seen) -> str | None:
        left = seen.words.get("left")
        if left is not None:
            return f"Rank {rank} ended {seen.place}: {left}" if left else None
        if seen.words and is_alive(seen.process) is False:
            return f"Rank {rank} ({seen.process}) was killed {seen.place}."
        silent_s = self._clock() - seen.at
        if silent_s > self._timeout_s:
            name = f"Rank {rank} ({seen.process})" if seen.words else f"Rank {rank}"
            if seen.words and is_alive(seen.process):  # it hears no SIGTERM, so its launcher would wait on
                os.kill(seen.process.pid, signal.SIGKILL)
            return f"{name} hangs: it has been silent for {silent_s:.0f} s, last seen {seen.place}."
        return None

    def _stuck(self) -> str | None:
        """A sentence if this rank computes for too long, which is to say that it waits for others."""
        waited_s = self._clock() - self._moved
        if self._own["doing"] != COMPUTING or waited_s <= self._timeout_s + SLACK_S:
            return None
        return f"{self.places()} {GOES_ON}"

    def _place(self) -> str:
        return f"at step {self._own['step']}, {self._own['doing']}"
