"""Base class of the plugin's docks: a scrolled column of widgets that runs at most one job at a time.

A dock reads its form, runs a call on a worker thread and shows the result. The subclasses decide what to
compute and what to do with the result: `swap/widget.py`, `synthesis/widget.py`, `segmentation/widget.py`.
"""

from collections.abc import Callable
from typing import Any

from napari.utils.notifications import show_error, show_warning
from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QDockWidget, QFrame, QMainWindow, QScrollArea, QVBoxLayout, QWidget

from napari_meduet.errors import OnProgress
from napari_meduet.gui.common.background import Job, Problem, delayed
from napari_meduet.gui.common.notice import Notice
from napari_meduet.gui.common.run_bar import RunBar

NARROWEST = 320  # pixels; the width that a form needs beside a vertical scroll bar
CANCELLED = "Cancelled; nothing was changed."


class Dock(QWidget):
    """Run bars, a notice and the running job, if any."""

    keeps_partial_results = False  # True where the result of a cancelled job is useful

    def __init__(self, run: RunBar) -> None:
        super().__init__()
        self._job: Job | None = None
        self._done = ""  # status text after the latest job
        self.run = run
        self._bars: dict[RunBar, Callable[[], str]] = {}  # each with its `disabled_reason`
        self._running = run  # the run bar of the current job
        self.notice = Notice()
        self.area = QScrollArea()
        self._is_placed = False
        self._place = delayed(self._join_others, 0, self)
        self.add_bar(run, lambda: self.disabled_reason())

    def add_bar(self, bar: RunBar, disabled_reason: Callable[[], str]) -> None:
        """Let a run bar show the jobs that are started with it.

        Args:
            disabled_reason: Returns why the bar's button is disabled now; empty where it is enabled.
        """
        self._bars[bar] = disabled_reason
        bar.cancel_pressed.connect(self.cancel)

    def scroll(self, *parts: QWidget) -> None:
        """Put widgets below each other in a scroll area."""
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
        """Run a call on a worker thread and pass its result to `use` in the GUI thread.

        Args:
            bar: The run bar that shows the progress; default: `run`.
        """
        self.notice.clear()
        self._done = ""
        self._running = bar or self.run
        self._job = Job(call, title, parent=self)
        self._job.progressed.connect(self._running.advance)
        self._job.succeeded.connect(use)
        self._job.failed.connect(self.show_problem)
        self._job.cancelled.connect(self._show_cancelled)
        self._job.finished.connect(self._finished)
        self.job_began()
        for other in self._bars:
            other.setEnabled(other is self._running)
        self._running.start()
        self._job.start()

    def cancel(self) -> None:
        """Ask the running job, if any, to stop."""
        if self._job is not None:
            self._running.cancelling()
            self._job.cancel(keep_result=self.keeps_partial_results)

    def show_problem(self, problem: Problem) -> None:
        """Show a problem in the dock and as a napari notification."""
        self.notice.show_problem(problem)
        (show_error if problem.details else show_warning)(problem.sentence)

    def disabled_reason(self) -> str:
        """Return why the Run button is disabled now; empty where it is enabled."""
        raise NotImplementedError

    def job_began(self) -> None:
        """Disable the widgets that must not change while a job runs."""
        raise NotImplementedError

    def job_ended(self) -> None:
        """Enable the widgets that `job_began` disabled."""
        raise NotImplementedError

    def closed(self) -> None:
        """Free everything that is kept for the dock. Called when the dock leaves its window."""

    def event(self, event: QEvent) -> bool:  # Qt's name
        """Cancel the job when the dock is removed, and join other docks when the dock is first shown."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.closed()
            if self._job is not None:
                self._job.cancel()
        elif event.type() == QEvent.Type.Show and not self._is_placed:
            self._is_placed = True
            self._place.start()  # runs after napari has placed the dock
        return super().event(event)

    def _join_others(self) -> None:
        """Become a tab of another dock of this plugin, so that each has the full height of the window."""
        window, dock = self.window(), self.parent()
        if not isinstance(window, QMainWindow) or not isinstance(dock, QDockWidget):
            return
        others = (found for found in window.findChildren(QDockWidget) if isinstance(found.widget(), Dock))
        area = window.dockWidgetArea(dock)
        other = next((o for o in others if o is not dock and window.dockWidgetArea(o) == area), None)
        if other is not None and not dock.isFloating():
            window.tabifyDockWidget(other, dock)
            dock.raise_()

    def _show_cancelled(self) -> None:
        self._done = CANCELLED

    def _finished(self) -> None:
        self._job = None
        self.job_ended()
        self.rest()
        self._running.rest(self._bars[self._running](), self._done)

    def rest(self) -> None:
        """Update every run bar, if no job runs."""
        if self._job is None:
            for bar, disabled_reason in self._bars.items():
                bar.setEnabled(True)
                bar.rest(disabled_reason())
