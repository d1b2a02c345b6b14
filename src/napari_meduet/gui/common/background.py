"""Run one pipeline call on a worker thread and report its progress and its end in the GUI thread.

`Cancelled` is raised inside the pipeline's own frame, by its `on_progress` call, so that all its memory is
freed. napari knows the job: when the window closes, napari asks, cancels the job and exits. `dock.py` starts
jobs and decides what happens with their results.
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
from qtpy.QtCore import QObject, QTimer, Signal, Slot

from napari_meduet.errors import Cancelled, InputError, OnProgress

REPORT_INTERVAL_S = 0.05  # 20 updates a second look smooth and do not load the GUI thread


@dataclass(frozen=True)
class Problem:
    """The reason why a job ended without a result.

    Attributes:
        sentence: One sentence for the user.
        details: The traceback of an unexpected error; empty for an expected one.
    """

    sentence: str
    details: str = ""


class _Reports(QObject):
    """Signal that carries progress from the worker thread to the GUI thread. The work owns it."""

    moved = Signal(float, str)


class _Work:
    """The call as it runs on the worker thread. It never raises."""

    def __init__(self, call: Callable[[OnProgress], Any], title: str) -> None:
        self._call = call
        self._title = title
        self._last_report = -1.0
        self.reports = _Reports()
        self.is_cancelled: Callable[[], bool] = lambda: False
        self.result: Any = None
        self.problem: Problem | None = None
        self.was_cancelled = False

    def __str__(self) -> str:  # napari shows this name when it asks before closing
        return self._title

    def __call__(self) -> None:
        with warnings.catch_warnings():
            # napari would show all warnings of torch and numpy; pipelines list their own in their reports
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
            del self._call  # frees the request when the job ends

    def on_progress(self, fraction: float, doing: str) -> None:
        if self.is_cancelled():
            raise Cancelled
        now = time.monotonic()
        if fraction in (0.0, 1.0) or now - self._last_report >= REPORT_INTERVAL_S:
            self._last_report = now
            self.reports.moved.emit(min(max(fraction, 0.0), 1.0), doing)


def use_all_cores() -> None:
    """Let torch use every core available to this process. The setting applies to the current thread only."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(cores)


def unexpected(error: BaseException, title: str) -> Problem:
    """Return a sentence and the traceback for an unexpected error, with advice where some is known."""
    details = "".join(traceback.format_exception(error))
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Problem(
            f"{title} ran out of memory. Crop the scan, choose the CPU as device, or close other programs, "
            "and run it again.",
            details,
        )
    return Problem(f"{title} stopped on an unexpected error ({type(error).__name__}).", details)


def delayed(call: Callable[[], None], after_ms: int, parent: QObject) -> QTimer:
    """Return a timer that runs `call` once, `after_ms` milliseconds after its latest `start`."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(after_ms)
    timer.timeout.connect(call)
    return timer


class Relay(QObject):
    """Signal that carries intermediate results from the worker thread to the GUI thread. The work owns it."""

    sent = Signal(object)

    def send(self, what: object) -> None:
        """Emit `sent`. A bound method keeps this object alive; a bound signal would not."""
        self.sent.emit(what)


class Job(QObject):
    """A running call. It emits one of `succeeded`, `failed` and `cancelled`, and then `finished`."""

    progressed = Signal(float, str)
    succeeded = Signal(object)
    failed = Signal(object)  # Problem
    cancelled = Signal()
    finished = Signal()

    def __init__(self, call: Callable[[OnProgress], Any], title: str, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._title = title
        self._work = _Work(call, title)
        self._worker = create_worker(self._work)  # pyright: ignore[reportArgumentType]  # any callable works
        self._bar: cancelable_progress | None = None  # the progress bar in napari's activity dock
        self._keeps_result = False

    def start(self) -> None:
        """Start the work. Its signals arrive when the GUI thread is back in its event loop."""
        work, worker = self._work, self._worker
        self._bar = bar = cancelable_progress(total=100, desc=self._title)
        # napari sets the worker's own flag when its window closes
        work.is_cancelled = lambda: worker.abort_requested or bar.is_canceled
        work.reports.moved.connect(self._move)
        finished = worker.signals.finished
        finished.connect(bar.close)  # needed when this object is deleted before the work ends
        finished.connect(self._end)
        self.destroyed.connect(worker.quit)  # no receiver is left for the result
        worker.start()

    def cancel(self, keep_result: bool = False) -> None:
        """Ask the work to stop at its next progress report.

        Args:
            keep_result: Treat a result that the work returns after the request as a success.
        """
        self._keeps_result = keep_result
        self._worker.quit()

    @Slot(float, str)
    def _move(self, fraction: float, doing: str) -> None:
        self.progressed.emit(fraction, doing)
        # Each call on napari's bar lets Qt handle events, so the job may end between these lines.
        if self._bar is not None:
            self._bar.set_description(doing)
        if self._bar is not None:
            self._bar.update(round(100 * fraction) - self._bar.n)

    @Slot()
    def _end(self) -> None:
        self._bar = None
        work = self._work
        is_discarded = self._worker.abort_requested and not self._keeps_result
        if work.was_cancelled or is_discarded:
            self.cancelled.emit()
        elif work.problem is not None:
            self.failed.emit(work.problem)
        else:
            self.succeeded.emit(work.result)
        work.result = None
        self.finished.emit()
        self.deleteLater()
