"""The dock "MeDUET synthesis": sample new volumes with the content of one scan and the style of another.

A run shows previews in one layer, which becomes the result. Cancel keeps the latest preview and marks it as
partial. The expected duration beside Run is measured once for each model, device and size.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from napari.qt.threading import create_worker
from qtpy.QtCore import Slot
from qtpy.QtWidgets import QPushButton, QWidget

from napari_meduet.errors import InputError
from napari_meduet.gui.common.background import Problem, Relay, delayed
from napari_meduet.gui.common.dock import Dock
from napari_meduet.gui.common.forms import fill_column
from napari_meduet.gui.common.run_bar import RunBar
from napari_meduet.gui.common.section import Section
from napari_meduet.gui.io.intensity_windows import percentile_limits
from napari_meduet.gui.synthesis.controls import ANY
from napari_meduet.gui.synthesis.form import SynthesisForm, as_style
from napari_meduet.gui.synthesis.guidance_picture import GuidancePicture
from napari_meduet.gui.synthesis.jobs import measure_pace, open_and_sample, sample_in_style, try_weights
from napari_meduet.gui.synthesis.results import SynthesisView, limits_of
from napari_meduet.gui.synthesis.same_noise import SameNoise
from napari_meduet.gui.synthesis.side_by_side import SideBySide
from napari_meduet.pipelines.requests import SynthesisRequest

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_meduet.pipelines.synthesis.outputs import GuidanceGrid, Preview, SynthesisResult
    from napari_meduet.pipelines.synthesis.pace import Pace
    from napari_meduet.pipelines.synthesis.session import SynthesisSession

TITLE = "Synthesis"
PREDICT_AFTER_MS = 300  # after the latest change of the form


class SynthesisWidget(Dock):
    """Sample new volumes with the content of one scan and the style of another."""

    keeps_partial_results = True

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(RunBar("Run synthesis", on_cancel="the latest preview is kept"))
        self._viewer = napari_viewer
        self._session: SynthesisSession | None = None  # of the latest run
        self._view: SynthesisView | None = None  # of the running job
        self._first: Image | None = None  # result of the latest run
        self._second: Image | None = None  # the same noise in another style
        self._previews = Relay()
        self._paces: dict[tuple, Pace | None] = {}  # by model, device and size
        self._measuring: tuple | None = None
        self.form = SynthesisForm(napari_viewer)
        self.try_weights = QPushButton("Try weights")
        self.try_weights.setToolTip("Preview one slice with many weights and few steps")
        self.picture = GuidancePicture()
        self.same_noise = SameNoise(napari_viewer, self.form.domains, lambda layers: ANY)
        self._beside = SideBySide(napari_viewer)
        self._predict = delayed(self._show_duration, PREDICT_AFTER_MS, self)
        weights = fill_column(QWidget(), self.try_weights, self.picture)
        self.weights = Section("Choose weights from previews", weights)
        self.comparison = Section("Compare two styles", self.same_noise)
        self.scroll(self.form, self.run, self.notice, self.weights, self.comparison)
        self.form.changed.connect(self._form_changed)
        self.form.reweighted.connect(self._predict.start)
        self._previews.sent.connect(self._show_preview)
        self.run.run_pressed.connect(self._run)
        self.try_weights.clicked.connect(self._try_weights)
        self.picture.chosen.connect(self._choose_weights)
        self.same_noise.requested.connect(self._run_in_style)
        self.same_noise.side_by_side_toggled.connect(self._show_side_by_side)
        napari_viewer.layers.events.removed.connect(self._layer_removed)
        self._form_changed()

    # A run, from the button to the layers

    def _run(self) -> None:
        request = self._request()
        if request is None:
            return
        self._session = self._first = self._second = None
        self._sample(self.form.name(), self._like(), partial(open_and_sample, request), self._opened)

    def _run_in_style(self) -> None:
        style, name = self._second_style(), self.same_noise.style_source.name() or "any style"
        if self._session is None or isinstance(style, Problem):
            return
        call = partial(sample_in_style, self._session, style)
        self._sample(f"synthetic ▸ same noise, style of {name}", self._first, call, self._compared)

    def _sample(self, name: str, like: Image | None, call: Any, use: Any) -> None:
        """Start a sampling job and show its previews."""
        self.form.keep_choices()
        view = self._view = SynthesisView(self._viewer, name, like)
        self.start(TITLE, partial(call, self._previews.send), partial(use, view))

    @Slot(object)
    def _show_preview(self, preview: "Preview") -> None:
        if self._view is not None:
            self._view.preview(preview)

    def _opened(self, view: SynthesisView, answer: "tuple[SynthesisSession, SynthesisResult]") -> None:
        self._session, result = answer
        self._show(view, result)
        self._first = view.layers[0]

    def _compared(self, view: SynthesisView, result: "SynthesisResult") -> None:
        self._show(view, result)
        self._second = view.layers[0]

    def _show(self, view: SynthesisView, result: "SynthesisResult") -> None:
        view.show(result)
        seed = result.provenances[0]["seed"]
        self._done = "Cancelled; the latest preview is kept." if result.is_partial else f"Done, seed {seed}."
        if result.warnings:
            self._done = "\n".join([self._done, *result.warnings])

    # Weights from previews

    def _try_weights(self) -> None:
        request = self._request()
        if request is not None:
            limits = self._limits()
            self.start("Trying weights", partial(try_weights, request), partial(self._show_grid, limits))

    def _show_grid(self, limits: tuple[float, float] | None, grid: "GuidanceGrid") -> None:
        self.picture.show_grid(grid, limits or percentile_limits(grid.slices))

    def _choose_weights(self, content: float, style: float) -> None:
        self.form.content_weight.set_value(content)
        self.form.style_weight.set_value(style)

    # Side by side

    def _show_side_by_side(self, is_shown: bool) -> None:
        if is_shown and self._first is not None and self._second is not None:
            self._beside.show(self._first, self._second)
        else:
            self._beside.end()

    def _layer_removed(self, event: Any) -> None:
        if event.value in (self._first, self._second):
            self._first = None if event.value is self._first else self._first
            self._second = None if event.value is self._second else self._second
            self._offer_comparison()

    def _offer_comparison(self) -> None:
        has_pair = self._first is not None and self._second is not None
        self.same_noise.offer(self._session is not None and not self.is_busy, has_pair)
        if has_pair and self.same_noise.side_by_side.isChecked():
            self._show_side_by_side(True)

    # Methods of the base class

    def disabled_reason(self) -> str:
        """Return why a synthesis cannot run; empty if it can."""
        return self.form.disabled_reason()

    def job_began(self) -> None:
        """Disable everything except Cancel."""
        for part in (self.form, self.try_weights, self.same_noise):
            part.setEnabled(False)

    def job_ended(self) -> None:
        """Enable everything, and remove the preview of a job without a result."""
        if self._view is not None and not self._view.layers:
            self._view.withdraw()
        self._view = None
        for part in (self.form, self.same_noise):
            part.setEnabled(True)
        self._form_changed()
        self._offer_comparison()

    def closed(self) -> None:
        """Free the session, which holds the tokens of a scan, and restore the viewer's grid."""
        self._session = None
        self._beside.end()

    # State of the buttons

    def _form_changed(self) -> None:
        disabled_reason = self.disabled_reason()
        self.try_weights.setEnabled(not disabled_reason)
        self.run.predict(None)
        if not self.is_busy:
            self.run.rest(disabled_reason)
        if not disabled_reason:
            self._predict.start()

    def _show_duration(self) -> None:
        """Show the expected duration, and measure the generator's speed first if it is not known."""
        if self.is_busy or self.disabled_reason():
            return
        try:
            request = self.form.timed_request()
        except InputError:
            return
        key = request.model, request.device, request.size
        if key in self._paces:
            pace = self._paces[key]
            self.run.predict(None if pace is None else pace.seconds(request))
        elif self._measuring is None:
            self._measuring = key
            worker = create_worker(measure_pace, request)
            worker.returned.connect(self._measured)
            worker.start()

    def _measured(self, pace: "Pace | None") -> None:
        assert self._measuring is not None
        self._paces[self._measuring], self._measuring = pace, None
        self._show_duration()

    def _request(self) -> SynthesisRequest | None:
        """Return the form's request; on an error show it and return None."""
        try:
            return self.form.request()
        except InputError as error:
            self.show_problem(Problem(str(error)))
            return None

    def _second_style(self) -> Any:
        try:
            return as_style(self.same_noise.style_source)
        except InputError as error:
            problem = Problem(str(error))
            self.show_problem(problem)
            return problem

    def _like(self) -> Image | None:
        """Return the layer whose contrast the results use: the content, or else the style."""
        chosen = (self.form.content.value(), self.form.style_source.value())
        return next((layer for layer in chosen if isinstance(layer, Image)), None)

    def _limits(self) -> tuple[float, float] | None:
        """Return contrast limits for the previews: of the first result, the style or the content."""
        shown = (self._first, self.form.style_source.value(), self.form.content.value())
        layer = next((layer for layer in shown if isinstance(layer, Image)), None)
        return None if layer is None else limits_of(layer)
