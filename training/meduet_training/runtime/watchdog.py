"""A thread on every rank that ends the process when the job cannot continue, and prints the reason.

A collective operation waits for a dead or hanging rank until its timeout, and its error does not name the
rank. The heartbeats (heartbeat.py) do. The thread also ends a rank whose launcher is gone, and a rank that
cannot save a checkpoint in the time that is left after a signal.
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
from meduet_training.runtime.messages import print_to_stderr
from meduet_training.runtime.signals import EXIT_RESUMABLE, Stopped, StopSignals

EXIT_LOST = 1  # exit code when another rank is gone
CHECK_EVERY_S = 1.0
SETTLE_S = 5.0  # wait after a failed collective, until the heartbeats show which rank is missing
ORPHAN_S = 10.0  # time for a checkpoint after the launcher is gone
TERM_S = 22.0  # time for a checkpoint: torchrun, SLURM and Kubernetes kill 30 s after their SIGTERM
WARNING_S = 110.0  # time for a checkpoint after SIGUSR1, which a scheduler sends earlier


class Watchdog:
    """The watchdog thread of this rank, and the stage that the training reports to it."""

    def __init__(self, stopping: StopSignals, timeout_s: float) -> None:
        self._stopping = stopping
        self._ranks = Heartbeat(timeout_s) if dist.is_initialized() and dist.get_world_size() > 1 else None
        self._launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        self._is_orphan = False
        self._leave_at = float("inf")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def report_stage(self, step: int, doing: str) -> None:
        """Report the current step and stage: "reading", `COMPUTING`, "saving"."""
        if self._ranks:
            self._ranks.report_stage(step, doing)

    def end(self, error: BaseException | None) -> None:
        """Stop the thread. If the error comes from a missing rank, name the rank and end the process."""
        self._ended.set()
        self._thread.join()
        if not self._ranks:
            return
        deadline = time.monotonic() + SETTLE_S
        while _is_of_collectives(error) and time.monotonic() < deadline:
            if sentence := self._ranks.find_failure():
                _leave(sentence, EXIT_LOST)
            time.sleep(CHECK_EVERY_S)
        is_regular_end = error is None or isinstance(error, Stopped)
        if _is_of_collectives(error):
            _leave(f"{self._ranks.stages()} {GOES_ON}", EXIT_LOST)
        self._ranks.leave("" if is_regular_end else " ".join(str(error).split()) or type(error).__name__)

    def _run(self) -> None:
        while not self._ended.wait(CHECK_EVERY_S):
            self._check_launcher()
            self._check_deadline()
            if self._ranks and not self._is_orphan and (sentence := self._ranks.find_failure()):
                _leave(sentence, EXIT_LOST)

    def _check_launcher(self) -> None:
        if self._launcher and os.getppid() != self._launcher and not self._is_orphan:
            self._is_orphan = True  # the store may be gone together with the launcher
            print_to_stderr("The launcher of this process is gone. The process saves a checkpoint and ends.")
            self._leave_at = time.monotonic() + ORPHAN_S
            os.kill(os.getpid(), signal.SIGTERM)

    def _check_deadline(self) -> None:
        received = self._stopping.received
        if received and received[0] != signal.SIGINT:
            time_to_save_s = TERM_S if signal.SIGTERM in received else WARNING_S
            self._leave_at = min(self._leave_at, time.monotonic() + time_to_save_s)
        if time.monotonic() > self._leave_at:
            _leave(f"There was no time to finish and save the step. {GOES_ON}", EXIT_RESUMABLE)


@contextmanager
def watch_ranks(stopping: StopSignals, timeout_s: float) -> Iterator[Watchdog]:
    """Run the watchdog of this rank until the block ends.

    Args:
        timeout_s: seconds that a rank may be silent, or wait for other ranks.
    """
    watchdog = Watchdog(stopping, timeout_s)
    try:
        yield watchdog
    finally:
        watchdog.end(sys.exception())


def _is_of_collectives(error: BaseException | None) -> bool:
    """Whether the error comes from a collective operation. gloo raises a plain RuntimeError."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _leave(sentence: str, exit_code: int) -> NoReturn:
    """End this process at once, because its main thread may wait forever in a collective."""
    print_to_stderr(sentence)
    sys.stdout.flush()
    os._exit(exit_code)
