"""A thread of every rank that ends a job which cannot go on, and says why.

A collective waits for a rank that died or hangs until its timeout, and then names nobody. This thread does
(`heartbeat.py`). It also ends a rank whose launcher is gone, and one that cannot save in the time it has.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch.distributed as dist

from meduet_training.runtime.heartbeat import GOES_ON, Heartbeat
from meduet_training.runtime.messages import say_on_stderr
from meduet_training.runtime.signals import EXIT_RESUMABLE, Stopped, StopSignals

EXIT_LOST = 1  # another rank is gone
LOOK_EVERY_S = 1.0
SETTLE_S = 5.0  # after a collective failed, until it shows who is missing
ORPHAN_S = 10.0  # to save in, once the launcher is gone
TERM_S = 22.0  # to save in: torchrun, SLURM and Kubernetes kill 30 s after their SIGTERM
WARNING_S = 110.0  # to save in after SIGUSR1, which comes as early as it is asked to


class Supervisor:
    """What a training tells of itself, and the thread that looks around."""

    def __init__(self, stopping: StopSignals, timeout_s: float) -> None:
        self._stopping = stopping
        self._ranks = Heartbeat(timeout_s) if dist.is_initialized() and dist.get_world_size() > 1 else None
        self._launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        self._is_orphan = False
        self._leave_at = float("inf")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_around, name="supervisor", daemon=True)
        self._thread.start()

    def at(self, step: int, doing: str) -> None:
        """Tell which step is being taken, and with what: "reading", `COMPUTING`, "saving"."""
        if self._ranks:
            self._ranks.at(step, doing)

    def end(self, error: BaseException | None) -> None:
        """Stop looking; if a rank is missing, which the error comes from, say so and end the process."""
        self._ended.set()
        self._thread.join()
        if not self._ranks:
            return
        deadline = time.monotonic() + SETTLE_S
        while _is_of_collectives(error) and time.monotonic() < deadline:
            if sentence := self._ranks.look():
                _leave(sentence, EXIT_LOST)
            time.sleep(LOOK_EVERY_S)
        is_well = error is None or isinstance(error, Stopped)
        if _is_of_collectives(error):
            _leave(f"{self._ranks.places()} {GOES_ON}", EXIT_LOST)
        self._ranks.leave("" if is_well else " ".join(str(error).split()) or type(error).__name__)

    def _look_around(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            self._look_for_launcher()
            self._look_at_clock()
            if self._ranks and not self._is_orphan and (sentence := self._ranks.look()):
                _leave(sentence, EXIT_LOST)

    def _look_for_launcher(self) -> None:
        if self._launcher and os.getppid() != self._launcher and not self._is_orphan:
            self._is_orphan = True  # and the store may be gone with it
            say_on_stderr("The launcher of this process is gone; it saves a checkpoint and ends.")
            self._leave_at = time.monotonic() + ORPHAN_S
            os.kill(os.getpid(), signal.SIGTERM)

    def _look_at_clock(self) -> None:
        came = self._stopping.came
        if came and came[0] != signal.SIGINT:
            patience_s = TERM_S if signal.SIGTERM in came else WARNING_S
            self._leave_at = min(self._leave_at, time.monotonic() + patience_s)
        if time.monotonic() > self._leave_at:
            _leave(f"There was no time to finish the step and to save it. {GOES_ON}", EXIT_RESUMABLE)


@contextmanager
def supervised(stopping: StopSignals, timeout_s: float) -> Iterator[Supervisor]:
    """Watch over this rank and the others until the block ends.

    Args:
        timeout_s: that a rank may be silent, or wait for others.
    """
    supervisor = Supervisor(stopping, timeout_s)
    try:
        yield supervisor
    finally:
        supervisor.end(sys.exception())


def _is_of_collectives(error: BaseException | None) -> bool:
    """Whether ranks waited for each other in vain; gloo has no class of its own for that."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _leave(sentence: str, exit_code: int) -> NoReturn:
    """End this process at once: its main thread may wait for ever in a collective."""
    say_on_stderr(sentence)
    sys.stdout.flush()
    os._exit(exit_code)
