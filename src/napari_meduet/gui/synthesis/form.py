"""The form of a synthesis: what is wished for, as a request, and what stands in its way, in words."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from napari.layers import Layer
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QSpinBox, QVBoxLayout, QWidget

from napari_meduet.core.options import GuidanceForm
from napari_meduet.core.synthesis.sampler_registry import (
    SAMPLERS,
    default_sampler,
    generator_kind,
    samplers_for,
)
from napari_meduet.errors import InputError
from napari_meduet.gui.common.device_box import DeviceBox
from napari_meduet.gui.common.forms import AmountSlider, ChoiceBox, LayerBox, rows
from napari_meduet.gui.common.model_box import ModelBox
from napari_meduet.gui.common.section import Section
from napari_meduet.gui.layers import is_label_volume, is_scan, scan_of, share_grid, uppermost_scan
from napari_meduet.gui.synthesis.controls import ANY, Domain, SeedBox, SizeBox, StyleBox
from napari_meduet.gui.synthesis.mask_classes import mask_of
from napari_meduet.models.card import STYLES_FILE, ModelCard
from napari_meduet.pipelines.requests import MOST_STEPS, Anatomy, SynthesisRequest

if TYPE_CHECKING:
    from napari.components import ViewerModel

ANATOMIES = {"same": "same: place by place", "similar": "similar: no place is fixed"}
FORMS = {
    "paper": "paper: both at once",
    "compositional": "compositional: each alone",
    "nested": "nested: content, then style",
}
USUAL_WEIGHTS, POSSIBLE_WEIGHTS = (0.0, 6.0), (0.0, 30.0)
LEAST_NOISE = 0.05
MOST_VOLUMES = 16
NO_CONTROL = "This model has no ControlNet: it cannot follow a mask"
assert set(ANATOMIES) == set(get_args(Anatomy))
assert set(FORMS) == set(get_args(GuidanceForm))


class SynthesisForm(QWidget):
    """Emits `changed` for what asks for another volume, `reweighted` for another guidance of the same."""

    changed = Signal()
    reweighted = Signal()

    def __init__(self, viewer: "ViewerModel") -> None:
        super().__init__()
        self.model = ModelBox()
        self.device = DeviceBox()
        self._card: ModelCard | None = None
        self._obstacle = ""
        self.content = LayerBox(
            viewer,
            is_scan,
            placeholder="",
            default=lambda layers: uppermost_scan(layers) or ANY,
            others=lambda: [("any content", ANY)],
        )
        self.content.setToolTip("The scan whose anatomy is asked for")
        self.anatomy = ChoiceBox()
        self.anatomy.offer([(label, anatomy) for anatomy, label in ANATOMIES.items()], default="same")
        self.style_source = StyleBox(viewer, self.domains, self._another_scan)
        self.style_source.setToolTip("The scan, prototype or site whose look is asked for")
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
            others=lambda: [("noise alone", ANY)],
        )
        self.start_from.setToolTip("A scan to begin from, with noise on it: little noise stays close to it")
        self.noise = AmountSlider((LEAST_NOISE, 1.0), (LEAST_NOISE, 1.0), SynthesisRequest.noise)
        self.mask_labels = LayerBox(
            viewer,
            is_label_volume,
            placeholder="",
            default=lambda layers: ANY,
            others=lambda: [("no mask", ANY)],
        )
        self.guidance = ChoiceBox()
        self.guidance.offer([(label, form) for form, label in FORMS.items()], default="paper")
        self.guidance.setToolTip("How the two weights are combined (Eqs. 21-24)")
        self.extent = SizeBox()
        self.count = QSpinBox()
        self.count.setRange(1, MOST_VOLUMES)
        self.count.setToolTip("How many volumes; their seeds count on from the first")
        self._lay_out()
        self._connect()
        self._model_changed()

    def _lay_out(self) -> None:
        self.wishes = QWidget()
        self.wishes.setLayout(
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
        self.finer = QWidget()
        self.finer.setLayout(
            rows(
                ("Start from", self.start_from),
                ("Noise", self.noise),
                ("Mask", self.mask_labels),
                ("Guidance", self.guidance),
                ("Size", self.extent),
                ("Volumes", self.count),
            )
        )
        inner = QWidget()
        below = QVBoxLayout(inner)
        below.setContentsMargins(0, 0, 0, 0)
        below.addLayout(rows(("Model", self.model), ("Device", self.device)))
        below.addWidget(self.finer)
        self.options = Section("Options", inner)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(self.wishes)
        column.addWidget(self.options)

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
            control.changed.connect(self._wish_changed)
        for number in (self.steps, self.count):
            number.valueChanged.connect(self._wish_changed)
        self.content_weight.changed.connect(self.reweighted)
        self.style_weight.changed.connect(self.reweighted)
        self.sampler.changed.connect(self._sampler_changed)
        self.content.changed.connect(self.style_source.refill)  # its default is another scan
        self.model.changed.connect(self._model_changed)

    def disabled_reason(self) -> str:
        """Why there is nothing to run; empty where there is."""
        mask, content = self.mask_labels.value(), self.content.value()
        if self._obstacle:
            return self._obstacle
        if mask is not ANY and content is ANY:
            return "A mask lies on the content's grid: choose the content as well."
        if mask is not ANY and not share_grid(mask, content):
            return f"{mask.name!r} lies on another grid than {content.name!r}: choose another mask, or none."
        return ""

    def request(self) -> SynthesisRequest:
        """What is asked for.

        Raises:
            InputError: a layer is no scan, the mask has other labels than the model's, or the values do not
                fit together.
        """
        return SynthesisRequest(
            content=_scan(self.content.value()),
            style=as_style(self.style_source),
            model=self.model.path(),
            device=self.device.value(),
            anatomy=self.anatomy.value(),
            mask=None
            if self.mask_labels.value() is ANY
            else mask_of(self.mask_labels.value(), self._mask_classes),
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
        """What decides how long the request takes, without the scans."""
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
        """Stay with what is chosen although a result will lie above it."""
        for box in (self.content, self.style_source, self.start_from, self.mask_labels):
            box.choose(box.value())

    def name(self) -> str:
        """What to call the result."""
        content, style = self.content.value(), self.style_source.name()
        told = []
        if content is not ANY:
            told.append(f"anatomy {'of' if self.anatomy.value() == 'same' else 'like'} {content.name}")
        if style:
            told.append(f"style of {style}")
        return "synthetic ▸ " + (", ".join(told) or "any")

    @property
    def generator(self) -> dict[str, Any]:
        """The sizes of the model's generator; empty where it has none."""
        return (self._card.generator if self._card else None) or {}

    @property
    def _mask_classes(self) -> dict[int, str]:
        """The name of each class that the model's ControlNet knows, under its label."""
        control = self._card.control if self._card else None
        return {each.label: each.name for each in control.classes} if control else {}

    def _mask(self) -> np.ndarray | None:
        layer = self.mask_labels.value()
        return None if layer is ANY else mask_of(layer, self._mask_classes)

    def domains(self) -> tuple[str, ...]:
        """Those whose styles the model keeps: real ones, of scans it was trained on."""
        if self._card is None or STYLES_FILE not in self._card.files:
            return ()
        return tuple(source.domain for source in self._card.training_data)

    def _another_scan(self, layers: list[Layer]) -> Layer | Domain:
        content = self.content.value()
        return uppermost_scan([layer for layer in layers if layer is not content]) or ANY

    def _model_changed(self) -> None:
        """Offer what this model can do, and say what it cannot."""
        self._obstacle = ""
        try:
            self._card = self.model.card()
        except InputError as error:
            self._card, self._obstacle = None, str(error)
        if self._card is not None and not self.generator:
            self._obstacle = (
                f"The model {self._card.name!r} has no generator, so it makes no new scans: choose another "
                "under Options ▸ Model."
            )
        for part in (self.wishes, self.finer):
            part.setEnabled(bool(self.generator))
            part.setToolTip(self._obstacle)
        self.style_source.refill()
        kind = generator_kind(self.generator.get("prediction", "velocity"))
        self.sampler.offer(
            [(record.label, name) for name, record in samplers_for(kind).items()],
            default=default_sampler(kind),
        )
        if self.generator:
            self.extent.set_own(self.generator["grid"])
        self.changed.emit()
        self._tell_what_is_possible()

    def _sampler_changed(self) -> None:
        self.steps.setValue(SAMPLERS[self.sampler.value()].default_steps)

    def _wish_changed(self, *_: Any) -> None:
        self._tell_what_is_possible()
        self.changed.emit()

    def _tell_what_is_possible(self) -> None:
        """Disable what has no effect now, with the reason."""
        has_content, has_style = self.content.value() is not ANY, self.style_source.value() is not ANY
        knows_places = bool(self.generator.get("spatial_content"))
        if self.generator and not knows_places and self.anatomy.value() == "same":
            with QSignalBlocker(self):
                self.anatomy.choose("similar")
        self._enable(
            self.anatomy,
            "Same: the network is told what lies at every place of the scan.\n"
            "Similar: only what the scan holds as a whole; organs will lie elsewhere.",
            (has_content, "No content is asked for"),
            (knows_places, "This model's generator knows no places: anatomy can only be similar"),
        )
        weigh = (
            "How far beyond what it learnt the network goes to follow the {}.\n0: no further; 1 to 3: usual."
        )
        self._enable(self.content_weight, weigh.format("content"), (has_content, "No content is asked for"))
        self._enable(self.style_weight, weigh.format("style"), (has_style, "No style is asked for"))
        self._enable(
            self.noise,
            "How much noise the scan gets: little stays close to it, 1 leaves nothing of it",
            (self.start_from.value() is not ANY, "It starts from noise alone"),
        )
        classes = ", ".join(self._mask_classes.values())
        self._enable(
            self.mask_labels,
            f"Labels that the anatomy follows: {classes}",
            (bool(self._mask_classes), NO_CONTROL),
        )

    @staticmethod
    def _enable(control: QWidget, told: str, *needs: tuple[bool, str]) -> None:
        reason = next((reason for is_met, reason in needs if not is_met), "")
        control.setEnabled(not reason)
        control.setToolTip(reason or told)


def as_style(box: StyleBox) -> Any:
    """What a style box says, as a request takes it: a scan, a path, a domain's name, or None.

    Raises:
        InputError: the layer is no scan.
    """
    style = box.value()
    if isinstance(style, Domain):
        return style.name or None
    return style if isinstance(style, Path) else scan_of(style)


def _scan(value: Layer | Domain) -> Any:
    return None if value is ANY else scan_of(value)  # pyright: ignore[reportArgumentType]  # a layer
