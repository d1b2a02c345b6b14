"""The form of a synthesis: its request, and the reason why it cannot run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from napari.layers import Layer
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QSpinBox, QWidget

from napari_meduet.core.options import GuidanceForm
from napari_meduet.core.synthesis.sampler_registry import (
    SAMPLERS,
    default_sampler,
    generator_kind,
    samplers_for,
)
from napari_meduet.errors import InputError
from napari_meduet.gui.common.device_box import DeviceBox
from napari_meduet.gui.common.forms import AmountSlider, ChoiceBox, LayerBox, fill_column, rows
from napari_meduet.gui.common.model_box import ModelBox
from napari_meduet.gui.common.section import Section
from napari_meduet.gui.layers import is_label_volume, is_scan, scan_of, share_grid, uppermost_scan
from napari_meduet.gui.synthesis.controls import ANY, Domain, SeedBox, SizeBox, StyleBox
from napari_meduet.gui.synthesis.mask_classes import mask_of
from napari_meduet.models.card import STYLES_FILE, ModelCard
from napari_meduet.pipelines.requests import MOST_STEPS, Anatomy, SynthesisRequest

if TYPE_CHECKING:
    from napari.components import ViewerModel

ANATOMIES = {"same": "same: spatial content", "similar": "similar: pooled content"}
FORMS = {
    "paper": "paper: one joint sum",
    "compositional": "compositional: each alone",
    "nested": "nested: content, then style",
}
USUAL_WEIGHTS, POSSIBLE_WEIGHTS = (0.0, 6.0), (0.0, 30.0)
MIN_NOISE = 0.05
MAX_VOLUMES = 16
NO_CONTROL = "Not available: this model has no ControlNet"
NO_CONTENT, NO_STYLE = "Not available without a content scan", "Not available without a style"
assert set(ANATOMIES) == set(get_args(Anatomy))
assert set(FORMS) == set(get_args(GuidanceForm))


class SynthesisForm(QWidget):
    """Settings of a synthesis. Emits `reweighted` for the guidance weights and `changed` for all others."""

    changed = Signal()
    reweighted = Signal()

    def __init__(self, viewer: "ViewerModel") -> None:
        super().__init__()
        self.model = ModelBox()
        self.device = DeviceBox()
        self._card: ModelCard | None = None
        self._disabled_reason = ""
        self.content = LayerBox(
            viewer,
            is_scan,
            placeholder="",
            default=lambda layers: uppermost_scan(layers) or ANY,
            others=lambda: [("any content", ANY)],
        )
        self.content.setToolTip("Scan that gives the anatomy")
        self.anatomy = ChoiceBox()
        self.anatomy.offer([(label, anatomy) for anatomy, label in ANATOMIES.items()], default="same")
        self.style_source = StyleBox(viewer, self.domains, self._another_scan)
        self.style_source.setToolTip("Scan, prototype file or domain that gives the style")
        self.content_weight = AmountSlider(USUAL_WEIGHTS, POSSIBLE_WEIGHTS, SynthesisRequest.content_weight)
        self.style_weight = AmountSlider(USUAL_WEIGHTS, POSSIBLE_WEIGHTS, SynthesisRequest.style_weight)
        self.seed = SeedBox()
        self.sampler = ChoiceBox()
        self.steps = QSpinBox()
        self.steps.setRange(1, MOST_STEPS)
        self.start_from = LayerBox(
            viewer,
            is_scan,
            placeholder="",
            default=lambda layers: ANY,
            others=lambda: [("pure noise", ANY)],
        )
        self.start_from.setToolTip("Scan to start from, with added noise. Default: pure noise.")
        self.noise = AmountSlider((MIN_NOISE, 1.0), (MIN_NOISE, 1.0), SynthesisRequest.noise)
        self.mask_labels = LayerBox(
            viewer,
            is_label_volume,
            placeholder="",
            default=lambda layers: ANY,
            others=lambda: [("no mask", ANY)],
        )
        self.guidance = ChoiceBox()
        self.guidance.offer([(label, form) for form, label in FORMS.items()], default="paper")
        self.guidance.setToolTip("Formula that combines the two weights (Eqs. 21-24)")
        self.extent = SizeBox()
        self.count = QSpinBox()
        self.count.setRange(1, MAX_VOLUMES)
        self.count.setToolTip("Number of volumes. Their seeds are the seed above, plus 1, plus 2, and so on.")
        self._lay_out()
        self._connect()
        self._model_changed()

    def _lay_out(self) -> None:
        self.main_controls = QWidget()
        self.main_controls.setLayout(
            rows(
                ("Content", self.content),
                ("Anatomy", self.anatomy),
                ("Style", self.style_source),
                ("Content weight", self.content_weight),
                ("Style weight", self.style_weight),
                ("Seed", self.seed),
                ("Sampler", self.sampler),
                ("Steps", self.steps),
            )
        )
        self.option_controls = QWidget()
        self.option_controls.setLayout(
            rows(
                ("Start from", self.start_from),
                ("Noise", self.noise),
                ("Mask", self.mask_labels),
                ("Guidance", self.guidance),
                ("Size", self.extent),
                ("Volumes", self.count),
            )
        )
        model = rows(("Model", self.model), ("Device", self.device))
        self.options = Section("Options", fill_column(QWidget(), model, self.option_controls))
        fill_column(self, self.main_controls, self.options, spacing=6)

    def _connect(self) -> None:
        for control in (
            self.content,
            self.anatomy,
            self.style_source,
            self.seed,
            self.sampler,
            self.start_from,
            self.noise,
            self.mask_labels,
            self.guidance,
            self.extent,
            self.device,
        ):
            control.changed.connect(self._control_changed)
        for number in (self.steps, self.count):
            number.valueChanged.connect(self._control_changed)
        self.content_weight.changed.connect(self.reweighted)
        self.style_weight.changed.connect(self.reweighted)
        self.sampler.changed.connect(self._sampler_changed)
        self.content.changed.connect(self.style_source.refill)  # its default must differ from the content
        self.model.changed.connect(self._model_changed)

    def disabled_reason(self) -> str:
        """Return why a synthesis cannot run; empty if it can."""
        mask, content = self.mask_labels.value(), self.content.value()
        if self._disabled_reason:
            return self._disabled_reason
        if mask is not ANY and content is ANY:
            return "A mask needs a content scan on the same grid: choose the content scan as well."
        if mask is not ANY and not share_grid(mask, content):
            return (
                f"{mask.name!r} has another voxel grid than {content.name!r}: choose another mask, or none."
            )
        return ""

    def request(self) -> SynthesisRequest:
        """Return the request that the form describes.

        Raises:
            InputError: A layer is not a scan, the model has no class for a label of the mask, or the values
                do not fit together.
        """
        return SynthesisRequest(
            content=_scan(self.content.value()),
            style=as_style(self.style_source),
            model=self.model.path(),
            device=self.device.value(),
            anatomy=self.anatomy.value(),
            mask=None
            if self.mask_labels.value() is ANY
            else mask_of(self.mask_labels.value(), self.content.value(), self._mask_classes),
            content_weight=self.content_weight.value(),
            style_weight=self.style_weight.value(),
            guidance=self.guidance.value(),
            sampler=self.sampler.value(),
            steps=self.steps.value(),
            start_from=_scan(self.start_from.value()),
            noise=self.noise.value(),
            size=self.extent.value(),
            seed=self.seed.value(),
            count=self.count.value(),
        )

    def timed_request(self) -> SynthesisRequest:
        """Return a request without scans, with the fields that determine how long the sampling takes."""
        return SynthesisRequest(
            model=self.model.path(),
            device=self.device.value(),
            content_weight=self.content_weight.value() * (self.content.value() is not ANY),
            style_weight=self.style_weight.value() * (self.style_source.value() is not ANY),
            guidance=self.guidance.value(),
            sampler=self.sampler.value(),
            steps=self.steps.value(),
            noise=self.noise.value(),
            size=self.extent.value(),
            count=self.count.value(),
        )

    def keep_choices(self) -> None:
        """Keep the chosen layers when result layers are added above them."""
        for box in (self.content, self.style_source, self.start_from, self.mask_labels):
            box.keep()

    def name(self) -> str:
        """Return the name of the result's layer."""
        content, style = self.content.value(), self.style_source.name()
        sources = []
        if content is not ANY:
            sources.append(f"anatomy {'of' if self.anatomy.value() == 'same' else 'like'} {content.name}")
        if style:
            sources.append(f"style of {style}")
        return "synthetic ▸ " + (", ".join(sources) or "any")

    @property
    def generator(self) -> dict[str, Any]:
        """The configuration of the model's generator; empty if the model has none."""
        return (self._card.generator if self._card else None) or {}

    @property
    def _mask_classes(self) -> dict[int, str]:
        """The name of each class of the model's ControlNet, by label."""
        control = self._card.control if self._card else None
        return {each.label: each.name for each in control.classes} if control else {}

    def domains(self) -> tuple[str, ...]:
        """Return the names of the training domains whose styles the model stores."""
        if self._card is None or STYLES_FILE not in self._card.files:
            return ()
        return tuple(source.domain for source in self._card.training_data)

    def _another_scan(self, layers: list[Layer]) -> Layer | Domain:
        content = self.content.value()
        return uppermost_scan([layer for layer in layers if layer is not content]) or ANY

    def _model_changed(self) -> None:
        """Offer what the chosen model supports."""
        self._disabled_reason = ""
        try:
            self._card = self.model.card()
        except InputError as error:
            self._card, self._disabled_reason = None, str(error)
        if self._card is not None and not self.generator:
            self._disabled_reason = (
                f"The model {self._card.name!r} has no generator: choose another model under Options ▸ Model."
            )
        for part in (self.main_controls, self.option_controls):
            part.setEnabled(bool(self.generator))
            part.setToolTip(self._disabled_reason)
        self.style_source.refill()
        kind = generator_kind(self.generator.get("prediction", "velocity"))
        self.sampler.offer(
            [(record.label, name) for name, record in samplers_for(kind).items()],
            default=default_sampler(kind),
        )
        if self.generator:
            self.extent.set_own(self.generator["grid"])
        self.changed.emit()
        self._update_enabled()

    def _sampler_changed(self) -> None:
        self.steps.setValue(SAMPLERS[self.sampler.value()].default_steps)

    def _control_changed(self, *_: Any) -> None:
        self._update_enabled()
        self.changed.emit()

    def _update_enabled(self) -> None:
        """Disable the controls without effect, and put the reason into their tooltips."""
        has_content, has_style = self.content.value() is not ANY, self.style_source.value() is not ANY
        is_spatial = bool(self.generator.get("spatial_content"))
        if self.generator and not is_spatial and self.anatomy.value() == "same":
            with QSignalBlocker(self):
                self.anatomy.choose("similar")
        self._enable(
            self.anatomy,
            "Same: keep the position of each structure (spatial content).\n"
            "Similar: use the scan's mean content only; organs can move.",
            (has_content, NO_CONTENT),
            (is_spatial, "Not available: this model's generator has no spatial content"),
        )
        weight = "Guidance weight of the {}. 0 is the plain conditional model; 1 to 3 are usual."
        self._enable(self.content_weight, weight.format("content"), (has_content, NO_CONTENT))
        self._enable(self.style_weight, weight.format("style"), (has_style, NO_STYLE))
        self._enable(
            self.noise,
            "Noise added to the start scan. Small values stay close to the scan; 1 is pure noise.",
            (self.start_from.value() is not ANY, "Not available: the sampling starts from pure noise"),
        )
        classes = ", ".join(self._mask_classes.values())
        self._enable(
            self.mask_labels,
            f"Labels that define the anatomy: {classes}",
            (bool(self._mask_classes), NO_CONTROL),
        )

    @staticmethod
    def _enable(control: QWidget, tooltip: str, *needs: tuple[bool, str]) -> None:
        reason = next((reason for is_met, reason in needs if not is_met), "")
        control.setEnabled(not reason)
        control.setToolTip(reason or tooltip)


def as_style(box: StyleBox) -> Any:
    """Return the value of a style box for a request: a scan, a path, a domain's name, or None.

    Raises:
        InputError: The layer is not a scan.
    """
    style = box.value()
    if isinstance(style, Domain):
        return style.name or None
    return style if isinstance(style, Path) else scan_of(style)


def _scan(value: Layer | Domain) -> Any:
    return None if value is ANY else scan_of(value)  # pyright: ignore[reportArgumentType]  # a layer
