"""The dock "MeDUET style swap": asks through its form, runs on a worker thread, shows what comes back.

One job at a time, whatever is pressed how often. After a run its strength and texture can still be moved: the
open session redraws the run's own layer. Everything else starts a new run, and a new layer.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from napari_meduet.errors import InputError, OnProgress
from napari_meduet.gui.background import Job, Problem
from napari_meduet.gui.comparison import Comparison
from napari_meduet.gui.factors_panel import FactorsPanel
from napari_meduet.gui.notice import Notice
from napari_meduet.gui.results import ResultView
from napari_meduet.gui.run_bar import RunBar
from napari_meduet.gui.section import Section
from napari_meduet.gui.swap_form import SwapForm
from napari_meduet.gui.verdict_panel import VerdictPanel
from napari_meduet.pipelines.progress import parts
from napari_meduet.pipelines.requests import SwapRequest

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_meduet.pipelines.restyling import SwapResult, SwapSession

REDRAW_AFTER_MS = 150  # once the slider rests
NARROWEST = 320  # pixels; what the form needs beside a vertical scroll bar


def open_and_render(request: SwapRequest, on_progress: OnProgress) -> "tuple[SwapSession, SwapResult]":
    """Do the heavy part once, and render the strength that was asked for."""
    from napari_meduet.pipelines.restyling import open_swap

    opening, rendering = parts(on_progress, 3, 2)
    session = open_swap(request, opening)
    return session, session.render(on_progress=rendering)


class SwapWidget(QWidget):
    """Give one scan the style of another."""

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._job: Job | None = None
        self._session: SwapSession | None = None  # of the last run, while the form still asks the same
        self._view: ResultView | None = None  # of the last run
        self.form = SwapForm(napari_viewer)
        self.run = RunBar("Run style swap")
        self.notice = Notice()
        self.verdict = VerdictPanel()
        self.comparison = Comparison()
        self.factors = FactorsPanel(napari_viewer, self.form, self._start, self._show_problem)
        self._redraw = QTimer(self)
        self._redraw.setSingleShot(True)
        self._redraw.setInterval(REDRAW_AFTER_MS)
        self._lay_out()
        self.form.changed.connect(self._form_changed)
        self.form.retuned.connect(self._redraw.start)
        self._redraw.timeout.connect(self._render_again)
        self.run.run_pressed.connect(self._run)
        self.run.cancel_pressed.connect(self._cancel)
        self.comparison.difference_wanted.connect(self._show_difference)
        self.comparison.before_wanted.connect(self._show_before)
        self._form_changed()

    def _lay_out(self) -> None:
        inner = QWidget()
        column = QVBoxLayout(inner)
        for part in (self.form, self.run, self.notice, self.verdict, self.comparison):
            column.addWidget(part)
        column.addWidget(Section("Factors and prototypes", self.factors))
        column.addStretch(1)
        self.comparison.setVisible(False)
        self.area = scroll = QScrollArea()
        scroll.setWidget(inner)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMinimumWidth(NARROWEST)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll)

    # A run, from the press to the layer

    def _run(self) -> None:
        try:
            request = self.form.request()
        except InputError as error:
            self._show_problem(Problem(str(error)))
            return
        self.form.keep_choices()
        self.verdict.clear()
        self._session = None
        view = ResultView(self._viewer, self.form.content.value(), self.form.style_name())
        opened = partial(self._opened, view, request.strength)
        self._start("Style swap", partial(open_and_render, request), opened)
        self.form.setEnabled(False)

    def _opened(self, view: ResultView, strength: float, answer: "tuple[SwapSession, SwapResult]") -> None:
        self._session, result = answer
        self._view = view
        self._show(view, strength, result)
        if view.is_source_gone:
            show_info("The scan's layer is no longer here; its result was placed where the scan had been.")

    def _render_again(self) -> None:
        """Redraw the last run's layer at the strength the slider has now."""
        if self._session is None or self._view is None:
            return
        if self._job is not None:
            self._redraw.start()  # once that is done
        elif self._view.layer is None:
            self._session = None  # its layer was deleted
        else:
            strength, texture = self.form.strength.value(), self.form.texture.isChecked()
            session = self._session
            self._start(
                "Style swap",
                lambda on_progress: session.render(strength, texture=texture, on_progress=on_progress),
                partial(self._show, self._view, strength),
            )

    def _show(self, view: ResultView, strength: float, result: "SwapResult") -> None:
        view.show(result, strength)
        view.show_difference(self.comparison.difference.isChecked())
        self.verdict.show_report(result.report)
        self.comparison.setVisible(True)
        self._done = (
            f"Done on {result.provenance['device'].upper()}. Strength and texture can still be moved."
        )

    # One job at a time

    @property
    def is_busy(self) -> bool:
        """Whether a job is running."""
        return self._job is not None

    def _start(self, title: str, call: Callable[[OnProgress], Any], use: Callable[[Any], None]) -> None:
        self.notice.clear()
        self._done = ""
        self._job = Job(call, title, parent=self)
        self._job.progressed.connect(self.run.advance)
        self._job.succeeded.connect(use)
        self._job.failed.connect(self._show_problem)
        self._job.cancelled.connect(self._was_cancelled)
        self._job.finished.connect(self._finished)
        self.factors.setEnabled(False)
        self.run.start()
        self._job.start()

    def event(self, event: QEvent) -> bool:  # Qt's name
        """Closing the dock takes the widget out of it: what runs is stopped."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._session = None
            self._cancel()
        return super().event(event)

    def _cancel(self) -> None:
        if self._job is not None:
            self.run.cancelling()
            self._job.cancel()

    def _was_cancelled(self) -> None:
        self._done = "Cancelled; nothing was changed."

    def _finished(self) -> None:
        self._job = None
        self.form.setEnabled(True)
        self.factors.setEnabled(True)
        self.run.rest(self.form.obstacle(), self._done)

    def _show_problem(self, problem: Problem) -> None:
        self.notice.show_problem(problem)
        (show_error if problem.details else show_warning)(problem.sentence)

    # What the form and the comparison ask for

    def _form_changed(self) -> None:
        """The form asks something else than the last run answered: the next run is a new one."""
        self._session = None
        self._redraw.stop()
        if self._job is None:
            self.run.rest(self.form.obstacle())

    def _show_difference(self, is_wanted: bool) -> None:
        if self._view is not None:
            self._view.show_difference(is_wanted)

    def _show_before(self, is_wanted: bool) -> None:
        if self._view is not None and self._view.layer is not None:
            self._view.layer.visible = not is_wanted
