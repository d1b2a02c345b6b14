"""Signals end a training after its current step, with a checkpoint of that step.

Schedulers send SIGTERM and SIGUSR1, a person presses Ctrl-C. Exit code 75 means that the same command goes on
from the checkpoint.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_RESUMABLE = 75  # EX_TEMPFAIL of sysexits.h
EXIT_INTERRUPTED = 130  # as a shell reports a process stopped by Ctrl-C
SIGNALS = (signal.SIGINT, signal.SIGTERM) + ((signal.SIGUSR1,) if hasattr(signal, "SIGUSR1") else ())


class Stopped(Exception):
    """A training was stopped by a signal. The message says how to continue it."""

    def __init__(self, sentence: str, exit_code: int = EXIT_RESUMABLE) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class StopSignals:
    """The signals received so far. A call returns whether the training shall stop."""

    def __init__(self) -> None:
        self.received: list[int] = []

    def __call__(self) -> bool:
        return bool(self.received)

    @property
    def exit_code(self) -> int:
        """Exit code of a training that these signals ended."""
        return EXIT_INTERRUPTED if self.received and self.received[0] == signal.SIGINT else EXIT_RESUMABLE


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Record stop signals until the block ends. A second Ctrl-C stops at once; a second SIGTERM does nothing.

    A scheduler sends its signal to a process and to the launcher, and the launcher forwards it. So a signal
    often arrives twice.
    """
    stopping = StopSignals()
    usual = {number: signal.getsignal(number) for number in SIGNALS}

    def on_signal(number: int, frame: FrameType | None) -> None:
        stopping.received.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, usual[signal.SIGINT])

    for number in SIGNALS:
        signal.signal(number, on_signal)
    try:
        yield stopping
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
