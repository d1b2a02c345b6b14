"""The dock "MeDUET style swap": asks through its form, runs on a worker thread, shows what comes back.

One job at a time, whatever is pressed how often. After a run its strength and texture can still be moved: the
open session redraws the run's own layer. Everything else starts a new run, and a new layer.
"""

from functools import partial
from typing import TYPE_CHECKING

from napari.utils.notifications import show_info
from qtpy.QtCore import QTimer

from napari_meduet.errors import InputError, OnProgress
from napari_meduet.gui.common.background import Problem
from napari_meduet.gui.common.dock import Dock
from napari_meduet.gui.common.results import ResultView
from napari_meduet.gui.common.run_bar import RunBar
from napari_meduet.gui.common.section import Section
from napari_meduet.gui.swap.comparison import Comparison
from napari_meduet.gui.swap.factors_panel import FactorsPanel
from napari_meduet.gui.swap.form import SwapForm
from napari_meduet.gui.swap.verdict_panel import VerdictPanel
from napari_meduet.pipelines.common.progress import parts
from napari_meduet.pipelines.requests import SwapRequest

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_meduet.pipelines.swap.session import SwapResult, SwapSession

REDRAW_AFTER_MS = 150  # once the slider rests


def open_and_render(request: SwapRequest, on_progress: OnProgress) -> "tuple[SwapSession, SwapResult]":
    """Do the heavy part once, and render the strength that was asked for."""
    from napari_meduet.pipelines.swap.session import open_swap

    opening, rendering = parts(on_progress, 3, 2)
    session = open_swap(request, opening)
    return session, session.render(on_progress=rendering)


class SwapWidget(Dock):
    """Give one scan the style of another."""

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(RunBar("Run style swap"))
        self._viewer = napari_viewer
        self._session: SwapSession | None = None  # of the last run, while the form still asks the same
        self._view: ResultView | None = None  # of the last run
        self.form = SwapForm(napari_viewer)
        self.verdict = VerdictPanel()
        self.comparison = Comparison()
        self.factors = FactorsPanel(napari_viewer, self.form, self.start, self.show_problem)
        self._redraw = QTimer(self)
        self._redraw.setSingleShot(True)
        self._redraw.setInterval(REDRAW_AFTER_MS)
        self.comparison.setVisible(False)
        self.scroll(
            self.form,
            self.run,
            self.notice,
            self.verdict,
            self.comparison,
            Section("Factors and prototypes", self.factors),
        )
        self.form.changed.connect(self._form_changed)
        self.form.retuned.connect(self._redraw.start)
        self._redraw.timeout.connect(self._render_again)
        self.run.run_pressed.connect(self._run)
        self.comparison.difference_wanted.connect(self._show_difference)
        self.comparison.before_wanted.connect(self._show_before)
        self._form_changed()

    # A run, from the press to the layer

    def _run(self) -> None:
        try:
            request = self.form.request()
        except InputError as error:
            self.show_problem(Problem(str(error)))
            return
        self.form.keep_choices()
        self.verdict.clear()
        self._session = None
        view = ResultView(self._viewer, self.form.content.value(), self.form.style_name())
        opened = partial(self._opened, view, request.strength)
        self.start("Style swap", partial(open_and_render, request), opened)
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
            self.start(
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

    # What a dock is asked

    def disabled_reason(self) -> str:
        """What the form still misses."""
        return self.form.disabled_reason()

    def job_began(self) -> None:
        """The buttons for factors; the form too where `_run` says so: a redraw follows the slider."""
        self.factors.setEnabled(False)

    def job_ended(self) -> None:
        """The form and the buttons for factors."""
        self.form.setEnabled(True)
        self.factors.setEnabled(True)

    def closed(self) -> None:
        """The session holds a scan's tokens."""
        self._session = None

    # What the form and the comparison ask for

    def _form_changed(self) -> None:
        """The form asks something else than the last run answered: the next run is a new one."""
        self._session = None
        self._redraw.stop()
        if self._job is None:
            self.run.rest(self.form.disabled_reason())

    def _show_difference(self, is_wanted: bool) -> None:
        if self._view is not None:
            self._view.show_difference(is_wanted)

    def _show_before(self, is_wanted: bool) -> None:
        if self._view is not None and self._view.layer is not None:
            self._view.layer.visible = not is_wanted
