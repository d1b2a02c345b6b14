"""One pipeline call on a worker thread: its progress, its Cancel and its end, all told in the GUI thread.

Work stops where it stands: `on_progress` raises `Cancelled` inside the pipeline's own frame, so everything
it held is freed (a suspended generator would keep it alive). Napari knows of the job, so closing the window
asks, cancels and leaves. What the job computes, and what becomes of its result, is the caller's business.
"""

import os
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from napari.qt.threading import create_worker
from napari.utils import cancelable_progress
from qtpy.QtCore import QObject, Signal, Slot

from napari_meduet.errors import Cancelled, InputError, OnProgress

REPORT_INTERVAL_S = 0.05  # a bar that moves 20 times a second looks smooth, and leaves the GUI thread alone


@dataclass(frozen=True)
class Problem:
    """Why a job ended without a result: one sentence for people, and for unexpected ends the whole story."""

    sentence: str
    details: str = ""


class _Reports(QObject):
    """Carries progress from the worker thread to the GUI thread; belongs to the work, not to a widget."""

    moved = Signal(float, str)


class _Work:
    """The call itself, as it runs on the worker thread; it never raises."""

    def __init__(self, call: Callable[[OnProgress], Any], title: str) -> None:
        self._call = call
        self._title = title
        self._last_report = -1.0
        self.reports = _Reports()
        self.is_cancelled: Callable[[], bool] = lambda: False
        self.result: Any = None
        self.problem: Problem | None = None
        self.was_cancelled = False

    def __str__(self) -> str:  # napari names running work by this, in its question before closing
        return self._title

    def __call__(self) -> None:
        with warnings.catch_warnings():
            # napari would pop up every remark of torch or numpy; a pipeline says its doubts in its report
            warnings.simplefilter("ignore")
            self._run()

    def _run(self) -> None:
        try:
            use_all_cores()
            self.on_progress(0.0, "Starting")
            self.result = self._call(self.on_progress)
        except Cancelled:
            self.was_cancelled = True
        except InputError as error:
            self.problem = Problem(str(error))
        except BaseException as error:
            self.problem = unexpected(error, self._title)
        finally:
            del self._call  # nothing of the request outlives the job

    def on_progress(self, fraction: float, doing: str) -> None:
        if self.is_cancelled():
            raise Cancelled
        now = time.monotonic()
        if fraction in (0.0, 1.0) or now - self._last_report >= REPORT_INTERVAL_S:
            self._last_report = now
            self.reports.moved.emit(min(max(fraction, 0.0), 1.0), doing)


def use_all_cores() -> None:
    """Let torch use every core this process may; set in another thread it would not reach this one."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(cores)


def unexpected(error: BaseException, title: str) -> Problem:
    """A sentence for an end that nobody foresaw, with a way out where one is known."""
    details = "".join(traceback.format_exception(error))
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Problem(
            f"{title} ran out of memory. Crop the scan, choose the CPU as device, or close other programs, "
            "and run it again.",
            details,
        )
    return Problem(f"{title} stopped on an unexpected error ({type(error).__name__}).", details)


class Relay(QObject):
    """Carries what comes before the end from the worker thread to the GUI thread; belongs to the work."""

    sent = Signal(object)

    def send(self, what: object) -> None:
        """Have it arrive at whom `sent` is connected to; a bound signal alone would not keep this alive."""
        self.sent.emit(what)


class Job(QObject):
    """A running call. Exactly one of `succeeded`, `failed` and `cancelled` follows, then `finished`."""

    progressed = Signal(float, str)
    succeeded = Signal(object)
    failed = Signal(object)  # Problem
    cancelled = Signal()
    finished = Signal()

    def __init__(self, call: Callable[[OnProgress], Any], title: str, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._title = title
        self._work = _Work(call, title)
        self._worker = create_worker(self._work)  # pyright: ignore[reportArgumentType]  # any callable will do
        self._bar: cancelable_progress | None = None  # the one in napari's activity dock
        self._keeps_result = False

    def start(self) -> None:
        """Begin; the signals come once the GUI thread is back in its event loop."""
        work, worker = self._work, self._worker
        self._bar = bar = cancelable_progress(total=100, desc=self._title)
        # napari sets the worker's own flag when its window closes
        work.is_cancelled = lambda: worker.abort_requested or bar.is_canceled
        work.reports.moved.connect(self._move)
        finished = worker.signals.finished
        finished.connect(bar.close)  # also where this object is gone before the work is
        finished.connect(self._end)
        self.destroyed.connect(worker.quit)  # nobody is left to take the result
        worker.start()

    def cancel(self, keep_result: bool = False) -> None:
        """Ask the work to stop at its next report of progress.

        Args:
            keep_result: what it returns nonetheless is a success.
        """
        self._keeps_result = keep_result
        self._worker.quit()

    @Slot(float, str)
    def _move(self, fraction: float, doing: str) -> None:
        self.progressed.emit(fraction, doing)
        # Napari's bar lets Qt handle events in every line that touches it: the job may end within one.
        if self._bar is not None:
            self._bar.set_description(doing)
        if self._bar is not None:
            self._bar.update(round(100 * fraction) - self._bar.n)

    @Slot()
    def _end(self) -> None:
        self._bar = None
        work = self._work
        is_unwanted = self._worker.abort_requested and not self._keeps_result
        if work.was_cancelled or is_unwanted:
            self.cancelled.emit()
        elif work.problem is not None:
            self.failed.emit(work.problem)
        else:
            self.succeeded.emit(work.result)
        work.result = None
        self.finished.emit()
        self.deleteLater()
