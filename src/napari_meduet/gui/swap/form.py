"""The form of a style swap: what is chosen, as a request, and what is still missing, in words."""

from pathlib import Path
from typing import TYPE_CHECKING, get_args

from napari.layers import Layer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QToolButton, QVBoxLayout, QWidget

from napari_meduet.core.options import STRENGTH_RANGE
from napari_meduet.gui.common.device_box import DeviceBox
from napari_meduet.gui.common.forms import ChoiceBox, LayerBox, StrengthSlider, ask_prototype, rows
from napari_meduet.gui.common.model_box import ModelBox
from napari_meduet.gui.common.section import Section
from napari_meduet.gui.layers import (
    is_label_volume,
    is_scan,
    scan_of,
    share_grid,
    to_voxels,
    uppermost_scan,
)
from napari_meduet.pipelines.requests import Decode, Mode, SwapRequest

if TYPE_CHECKING:
    from napari.components import ViewerModel

MODES = {
    "shift": "shift: move as a whole",
    "prototype": "prototype: one for all places",
    "adain": "adain: mean and spread",
    "token": "token: place by place",
}
DECODES = {"residual": "residual: add the change", "full": "full: what it decodes"}
TEXTURE = "Also move the texture, in which scanners and kernels differ most"
assert set(MODES) == set(get_args(Mode))
assert set(DECODES) == set(get_args(Decode))


class SwapForm(QWidget):
    """Content, style, strength and options; emits `changed`, and `retuned` for what is quick to redo."""

    changed = Signal()
    retuned = Signal()

    def __init__(self, viewer: "ViewerModel") -> None:
        super().__init__()
        self.content = LayerBox(viewer, is_scan, placeholder="no scan yet", default=uppermost_scan)
        self.content.setToolTip("The scan whose anatomy stays")
        self.style_source = LayerBox(
            viewer,
            is_scan,
            placeholder="scan or prototype",
            default=self._another_scan,
            browse=("Prototype file…", ask_prototype),
        )
        self.style_source.setToolTip("The scan, or the prototype of a site, whose look is taken over")
        self.exchange = QToolButton()
        self.exchange.setText("⇅")
        self.exchange.setToolTip("Exchange content and style")
        self.strength = StrengthSlider(*STRENGTH_RANGE)
        self.model = ModelBox()
        self.device = DeviceBox()
        self.mode = ChoiceBox()
        self.mode.offer([(label, mode) for mode, label in MODES.items()], default="shift")
        self.decode = ChoiceBox()
        self.decode.offer([(label, decode) for decode, label in DECODES.items()], default="residual")
        self.texture = QCheckBox("Noise and sharpness too")
        self.texture.setToolTip(TEXTURE)
        self.texture.setChecked(True)
        self.labels = LayerBox(viewer, is_label_volume, placeholder="none")
        self.labels.setToolTip("The report says how far the values under each label drift: lesions, say")
        self._lay_out()
        self._connect()

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        pair = QHBoxLayout()
        pair.setContentsMargins(0, 0, 0, 0)
        pair.addLayout(rows(("Content", self.content), ("Style", self.style_source)), 1)
        pair.addWidget(self.exchange)
        column.addLayout(pair)
        column.addLayout(rows(("Strength", self.strength), ("", self.texture)))
        inner = QWidget()
        inner.setLayout(
            rows(
                ("Model", self.model),
                ("Device", self.device),
                ("Mode", self.mode),
                ("Decode", self.decode),
                ("Watch labels", self.labels),
            )
        )
        self.options = Section("Options", inner)
        column.addWidget(self.options)

    def _connect(self) -> None:
        for box in (
            self.content,
            self.style_source,
            self.model,
            self.device,
            self.mode,
            self.decode,
            self.labels,
        ):
            box.changed.connect(self.changed)
        self.texture.toggled.connect(self.retuned)
        self.strength.changed.connect(self.retuned)
        self.decode.changed.connect(self._decode_changed)
        self.content.changed.connect(self.style_source.refill)  # its default is another scan
        self.exchange.clicked.connect(self._exchange)

    def disabled_reason(self) -> str:
        """Why there is nothing to run yet; empty where there is."""
        content, style, labels = self.content.value(), self.style_source.value(), self.labels.value()
        if content is None:
            return "Choose the scan to restyle: File ▸ Open, or File ▸ Open Sample ▸ MeDUET."
        if style is None:
            return "Choose a style: open a second scan, or take a prototype file."
        if style is content:
            return "Content and style are the same layer: choose another style."
        if labels is not None and not share_grid(labels, content):
            return f"{labels.name!r} lies on another grid than {content.name!r}: watch other labels, or none."
        if self.mode.value() == "token" and (isinstance(style, Path) or not share_grid(style, content)):
            return "Mode 'token' goes place by place: content and style must lie on the same grid."
        return ""

    def request(self) -> SwapRequest:
        """What is asked for.

        Raises:
            InputError: a layer is no scan, or the values do not fit together.
        """
        style, labels = self.style_source.value(), self.labels.value()
        return SwapRequest(
            content=scan_of(self.content.value()),
            style=style if isinstance(style, Path) else scan_of(style),
            model=self.model.path(),
            device=self.device.value(),
            mode=self.mode.value(),
            strength=self.strength.value(),
            decode=self.decode.value(),
            texture=self.texture.isChecked(),
            labels=None if labels is None else to_voxels(labels.data),
        )

    def keep_choices(self) -> None:
        """Stay with content and style although a result will lie above them."""
        self.content.choose(self.content.value())
        self.style_source.choose(self.style_source.value())

    def style_name(self) -> str:
        """What to call the style."""
        style = self.style_source.value()
        return style.stem if isinstance(style, Path) else style.name

    def _decode_changed(self) -> None:
        is_residual = self.decode.value() == "residual"
        self.texture.setEnabled(is_residual)
        self.texture.setToolTip(TEXTURE if is_residual else "A full decode draws its own texture")

    def _another_scan(self, layers: list[Layer]) -> Layer | None:
        content = self.content.value()
        return uppermost_scan([layer for layer in layers if layer is not content])

    def _exchange(self) -> None:
        content, style = self.content.value(), self.style_source.value()
        if isinstance(style, Layer) and content is not None:
            self.content.choose(style)
            self.style_source.choose(content)
