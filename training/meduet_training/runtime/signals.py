"""Signals end a training after the step it is in, with a checkpoint of that step.

SIGTERM and SIGUSR1 come from schedulers, Ctrl-C from a person. What comes of them is in the exit code: 75
says that the same command goes on from there.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_RESUMABLE = 75  # EX_TEMPFAIL of sysexits.h
EXIT_INTERRUPTED = 130  # as a shell reports a process stopped by Ctrl-C
SIGNALS = (signal.SIGINT, signal.SIGTERM) + ((signal.SIGUSR1,) if hasattr(signal, "SIGUSR1") else ())


class Stopped(Exception):
    """A training was asked to stop, and did. The message says how to go on."""

    def __init__(self, sentence: str, exit_code: int = EXIT_RESUMABLE) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class StopSignals:
    """What came so far. Calling it tells whether the training shall end."""

    def __init__(self) -> None:
        self.came: list[int] = []

    def __call__(self) -> bool:
        return bool(self.came)

    @property
    def exit_code(self) -> int:
        """Of a training that ended because of them."""
        return EXIT_INTERRUPTED if self.came and self.came[0] == signal.SIGINT else EXIT_RESUMABLE


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Gives what tells whether a signal came; a second Ctrl-C stops at once, a second SIGTERM does nothing.

    Schedulers send theirs to a process and to its launcher, which hands it on: two are no more than one.
    """
    stopping = StopSignals()
    usual = {number: signal.getsignal(number) for number in SIGNALS}

    def on_signal(number: int, frame: FrameType | None) -> None:
        stopping.came.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, usual[signal.SIGINT])

    for number in SIGNALS:
        signal.signal(number, on_signal)
    try:
        yield stopping
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
