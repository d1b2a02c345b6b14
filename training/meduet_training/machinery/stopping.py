"""Ctrl-C and SIGTERM end a training after the step it is in, with a checkpoint of that step."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A training was asked to stop, and did. The message says how to go on."""


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Gives a function that tells whether a signal came; a second one stops at once, as usual."""
    usual = {number: signal.getsignal(number) for number in SIGNALS}
    came = []

    def restore() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    def on_signal(number: int, frame: FrameType | None) -> None:
        came.append(number)
        restore()

    for number in SIGNALS:
        signal.signal(number, on_signal)
    try:
        yield lambda: bool(came)
    finally:
        restore()
