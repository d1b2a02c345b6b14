"""Stopping a network between two of its layers.

A tile or a window may take seconds on a CPU, and a cancelled job should not run on for so long. While the
block lasts, every layer first reports progress from this thread, which raises `Cancelled` where the job was
cancelled.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn


@contextmanager
def interruptible(network: object, report: Callable[[], None]) -> Iterator[None]:
    """Call `report` before each layer of a network that this thread runs."""
    thread = threading.get_ident()  # another job may run the same network

    def before_layer(*_: Any) -> None:
        if threading.get_ident() == thread:
            report()

    with ExitStack() as stack:
        if isinstance(network, nn.Module):
            for layer in network.modules():
                if next(layer.children(), None) is None:
                    stack.enter_context(layer.register_forward_pre_hook(before_layer))
        yield
