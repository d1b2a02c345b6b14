"""What every dock of the plugin is: a scrolled column and one job at a time, whatever is pressed how often.

A dock asks through its form, runs on a worker thread, and shows what comes back. What it computes and what
becomes of the result is told by the docks themselves: `swap/widget.py`, `synthesis/widget.py`.
"""

from collections.abc import Callable
from typing import Any

from napari.utils.notifications import show_error, show_warning
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtWidgets import QDockWidget, QFrame, QMainWindow, QScrollArea, QVBoxLayout, QWidget

from napari_meduet.errors import OnProgress
from napari_meduet.gui.common.background import Job, Problem
from napari_meduet.gui.common.notice import Notice
from napari_meduet.gui.common.run_bar import RunBar

NARROWEST = 320  # pixels; what a form needs beside a vertical scroll bar
CANCELLED = "Cancelled; nothing was changed."


class Dock(QWidget):
    """Run bars, a notice, and the job that runs, if any."""

    keeps_partial_results = False  # whether what a cancelled job returns nonetheless is of use

    def __init__(self, run: RunBar) -> None:
        super().__init__()
        self._job: Job | None = None
        self._done = ""  # what to say of the last job
        self.run = run
        self._bars: dict[RunBar, Callable[[], str]] = {}  # each with why it cannot run
        self._running = run  # the one of the job
        self.notice = Notice()
        self.area = QScrollArea()
        self._is_placed = False
        self._place = QTimer(self)
        self._place.setSingleShot(True)
        self._place.timeout.connect(self._join_others)
        self.add_bar(run, lambda: self.disabled_reason())

    def add_bar(self, bar: RunBar, disabled_reason: Callable[[], str]) -> None:
        """Have a run bar follow the jobs that are started with it.

        Args:
            obstacle: why nothing can run from there now; empty where something can.
        """
        self._bars[bar] = disabled_reason
        bar.cancel_pressed.connect(self.cancel)

    def scroll(self, *parts: QWidget) -> None:
        """Lay the parts below each other, in a dock of any height."""
        inner = QWidget()
        column = QVBoxLayout(inner)
        for part in parts:
            column.addWidget(part)
        column.addStretch(1)
        self.area.setWidget(inner)
        self.area.setWidgetResizable(True)
        self.area.setFrameShape(QFrame.Shape.NoFrame)
        self.area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMinimumWidth(NARROWEST)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self.area)

    @property
    def is_busy(self) -> bool:
        """Whether a job is running."""
        return self._job is not None

    def start(
        self,
        title: str,
        call: Callable[[OnProgress], Any],
        use: Callable[[Any], None],
        bar: RunBar | None = None,
    ) -> None:
        """Run a call on a worker thread, and hand what it returns to `use`.

        Args:
            bar: that tells how far it is; None: `run`.
        """
        self.notice.clear()
        self._done = ""
        self._running = bar or self.run
        self._job = Job(call, title, parent=self)
        self._job.progressed.connect(self._running.advance)
        self._job.succeeded.connect(use)
        self._job.failed.connect(self.show_problem)
        self._job.cancelled.connect(self._was_cancelled)
        self._job.finished.connect(self._finished)
        self.job_began()
        for other in self._bars:
            other.setEnabled(other is self._running)
        self._running.start()
        self._job.start()

    def cancel(self) -> None:
        """Ask the job, if any, to stop."""
        if self._job is not None:
            self._running.cancelling()
            self._job.cancel(keep_result=self.keeps_partial_results)

    def show_problem(self, problem: Problem) -> None:
        """Say what went wrong, here and as napari says it."""
        self.notice.show_problem(problem)
        (show_error if problem.details else show_warning)(problem.sentence)

    def disabled_reason(self) -> str:
        """Why nothing can run now; empty where something can."""
        raise NotImplementedError

    def job_began(self) -> None:
        """Disable what must not be changed meanwhile."""
        raise NotImplementedError

    def job_ended(self) -> None:
        """Enable it again."""
        raise NotImplementedError

    def closed(self) -> None:
        """The dock is no longer in a window: let go of what is kept for it."""

    def event(self, event: QEvent) -> bool:  # Qt's name
        """Taken out of its window, a dock stops what runs; the first time it is shown, it finds its place."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.closed()
            if self._job is not None:
                self._job.cancel()
        elif event.type() == QEvent.Type.Show and not self._is_placed:
            self._is_placed = True
            self._place.start()  # once napari has done with it
        return super().event(event)

    def _join_others(self) -> None:
        """Lie as a tab over another dock of ours: each then has the whole height of the window."""
        window, dock = self.window(), self.parent()
        if not isinstance(window, QMainWindow) or not isinstance(dock, QDockWidget):
            return
        others = (found for found in window.findChildren(QDockWidget) if isinstance(found.widget(), Dock))
        area = window.dockWidgetArea(dock)
        other = next((o for o in others if o is not dock and window.dockWidgetArea(o) == area), None)
        if other is not None and not dock.isFloating():
            window.tabifyDockWidget(other, dock)
            dock.raise_()

    def _was_cancelled(self) -> None:
        self._done = CANCELLED

    def _finished(self) -> None:
        self._job = None
        self.job_ended()
        self.rest()
        self._running.rest(self._bars[self._running](), self._done)

    def rest(self) -> None:
        """Say at every run bar what can run now, if no job does."""
        if self._job is None:
            for bar, disabled_reason in self._bars.items():
                bar.setEnabled(True)
                bar.rest(disabled_reason())
