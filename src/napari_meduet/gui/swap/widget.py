"""The dock "MeDUET style swap": give one scan the style of another.

After a run the session stays open: a change of strength or texture redraws the run's layer. Any other change
needs a new run, which adds a new layer.
"""

from functools import partial
from typing import TYPE_CHECKING

from napari.utils.notifications import show_info

from napari_meduet.errors import InputError, OnProgress
from napari_meduet.gui.common.background import Problem, delayed
from napari_meduet.gui.common.dock import Dock
from napari_meduet.gui.common.run_bar import RunBar
from napari_meduet.gui.common.section import Section
from napari_meduet.gui.swap.comparison import Comparison
from napari_meduet.gui.swap.factors_panel import FactorsPanel
from napari_meduet.gui.swap.form import SwapForm
from napari_meduet.gui.swap.results import SwapView
from napari_meduet.gui.swap.verdict_panel import VerdictPanel
from napari_meduet.pipelines.common.progress import parts
from napari_meduet.pipelines.requests import SwapRequest

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_meduet.pipelines.style_swap.session import SwapResult, SwapSession

REDRAW_AFTER_MS = 150  # after the latest move of the slider


def open_and_render(request: SwapRequest, on_progress: OnProgress) -> "tuple[SwapSession, SwapResult]":
    """Open a swap session and render the requested strength. Return the session and the result."""
    from napari_meduet.pipelines.style_swap.session import open_swap

    opening, rendering = parts(on_progress, 3, 2)
    session = open_swap(request, opening)
    return session, session.render(on_progress=rendering)


class SwapWidget(Dock):
    """Give one scan the style of another."""

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(RunBar("Run style swap"))
        self._viewer = napari_viewer
        self._session: SwapSession | None = None  # of the latest run, until the form changes
        self._view: SwapView | None = None  # of the latest run
        self.form = SwapForm(napari_viewer)
        self.verdict = VerdictPanel()
        self.comparison = Comparison()
        self.factors = FactorsPanel(napari_viewer, self.form, self.start, self.show_problem)
        self._redraw = delayed(self._render_again, REDRAW_AFTER_MS, self)
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
        self.run.run_pressed.connect(self._run)
        self.comparison.difference_toggled.connect(self._show_difference)
        self.comparison.before_toggled.connect(self._show_before)
        self._form_changed()

    # A run, from the button to the layer

    def _run(self) -> None:
        try:
            request = self.form.request()
        except InputError as error:
            self.show_problem(Problem(str(error)))
            return
        self.form.keep_choices()
        self.verdict.clear()
        self._session = None
        view = SwapView(self._viewer, self.form.content.value(), self.form.style_name())
        opened = partial(self._opened, view, request.strength)
        self.start("Style swap", partial(open_and_render, request), opened)
        self.form.setEnabled(False)

    def _opened(self, view: SwapView, strength: float, answer: "tuple[SwapSession, SwapResult]") -> None:
        self._session, result = answer
        self._view = view
        self._show(view, strength, result)
        if view.is_source_gone:
            show_info("The scan's layer was removed; the result was added at the scan's position.")

    def _render_again(self) -> None:
        """Redraw the latest run's layer at the current strength."""
        if self._session is None or self._view is None:
            return
        if self._job is not None:
            self._redraw.start()  # try again after the running job
        elif self._view.layer is None:
            self._session = None  # the user removed the layer
        else:
            strength, texture = self.form.strength.value(), self.form.texture.isChecked()
            session = self._session
            self.start(
                "Style swap",
                lambda on_progress: session.render(strength, texture=texture, on_progress=on_progress),
                partial(self._show, self._view, strength),
            )

    def _show(self, view: SwapView, strength: float, result: "SwapResult") -> None:
        view.show(result, strength)
        view.show_difference(self.comparison.difference.isChecked())
        self.verdict.show_report(result.report)
        self.comparison.setVisible(True)
        self._done = (
            f"Done on {result.provenance['device'].upper()}. You can still change strength and texture."
        )

    # Methods of the base class

    def disabled_reason(self) -> str:
        """Return why a swap cannot run; empty if it can."""
        return self.form.disabled_reason()

    def job_began(self) -> None:
        """Disable the factor buttons. `_run` disables the form; a redraw leaves the slider enabled."""
        self.factors.setEnabled(False)

    def job_ended(self) -> None:
        """Enable the form and the factor buttons."""
        self.form.setEnabled(True)
        self.factors.setEnabled(True)

    def closed(self) -> None:
        """Free the session, which holds the tokens of a scan."""
        self._session = None

    # Signals of the form and of the comparison

    def _form_changed(self) -> None:
        """Drop the session, because the form no longer matches the latest run."""
        self._session = None
        self._redraw.stop()
        if self._job is None:
            self.run.rest(self.form.disabled_reason())

    def _show_difference(self, is_shown: bool) -> None:
        if self._view is not None:
            self._view.show_difference(is_shown)

    def _show_before(self, is_held: bool) -> None:
        if self._view is not None and self._view.layer is not None:
            self._view.layer.visible = not is_held
