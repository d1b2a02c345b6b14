"""The form of a style swap: its request, and the reason why it cannot run."""

from pathlib import Path
from typing import TYPE_CHECKING, get_args

from napari.layers import Layer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QToolButton, QWidget

from napari_meduet.core.options import STRENGTH_RANGE
from napari_meduet.gui.common.device_box import DeviceBox
from napari_meduet.gui.common.forms import (
    ChoiceBox,
    LayerBox,
    StrengthSlider,
    ask_prototype,
    fill_column,
    rows,
)
from napari_meduet.gui.common.model_box import ModelBox
from napari_meduet.gui.common.section import Section
from napari_meduet.gui.layers import (
    is_label_volume,
    is_scan,
    labels_on,
    scan_of,
    share_grid,
    uppermost_scan,
)
from napari_meduet.pipelines.requests import Decode, StyleMode, SwapRequest

if TYPE_CHECKING:
    from napari.components import ViewerModel

MODES = {
    "shift": "shift: shift the mean",
    "prototype": "prototype: replace by the mean",
    "adain": "adain: match mean and std",
    "token": "token: copy each token",
}
DECODES = {"residual": "residual: add the change", "full": "full: decoder output"}
TEXTURE = "Transfer noise and sharpness too. Scanners and kernels differ most in these."
assert set(MODES) == set(get_args(StyleMode))
assert set(DECODES) == set(get_args(Decode))


class SwapForm(QWidget):
    """Content, style, strength and options.

    Emits `retuned` for strength and texture, which an open session can redraw, and `changed` for all others.
    """

    changed = Signal()
    retuned = Signal()

    def __init__(self, viewer: "ViewerModel") -> None:
        super().__init__()
        self.content = LayerBox(viewer, is_scan, placeholder="no scan yet", default=uppermost_scan)
        self.content.setToolTip("Scan that gives the anatomy")
        self.style_source = LayerBox(
            viewer,
            is_scan,
            placeholder="scan or prototype",
            default=self._another_scan,
            browse=("Prototype file…", ask_prototype),
        )
        self.style_source.setToolTip("Scan or prototype file that gives the style")
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
        self.labels.setToolTip("Labels, such as lesions, whose change of values the safety report lists")
        self._lay_out()
        self._connect()

    def _lay_out(self) -> None:
        pair = QHBoxLayout()
        pair.setContentsMargins(0, 0, 0, 0)
        pair.addLayout(rows(("Content", self.content), ("Style", self.style_source)), 1)
        pair.addWidget(self.exchange)
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
        amount = rows(("Strength", self.strength), ("", self.texture))
        fill_column(self, pair, amount, self.options, spacing=6)

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
        self.content.changed.connect(self.style_source.refill)  # its default must differ from the content
        self.exchange.clicked.connect(self._exchange)

    def disabled_reason(self) -> str:
        """Return why a swap cannot run; empty if it can."""
        content, style, labels = self.content.value(), self.style_source.value(), self.labels.value()
        if content is None:
            return "Choose the scan to change: File ▸ Open, or File ▸ Open Sample ▸ MeDUET."
        if style is None:
            return "Choose a style: open a second scan, or choose a prototype file."
        if style is content:
            return "Content and style are the same layer: choose another style."
        if labels is not None and not share_grid(labels, content):
            return (
                f"{labels.name!r} has another voxel grid than {content.name!r}: choose other labels, or none."
            )
        if self.mode.value() == "token" and (isinstance(style, Path) or not share_grid(style, content)):
            return "Mode 'token' copies each token: content and style must have the same grid."
        return ""

    def request(self) -> SwapRequest:
        """Return the request that the form describes.

        Raises:
            InputError: A layer is not a scan, or the values do not fit together.
        """
        content, style, labels = self.content.value(), self.style_source.value(), self.labels.value()
        return SwapRequest(
            content=scan_of(content),
            style=style if isinstance(style, Path) else scan_of(style),
            model=self.model.path(),
            device=self.device.value(),
            mode=self.mode.value(),
            strength=self.strength.value(),
            decode=self.decode.value(),
            texture=self.texture.isChecked(),
            labels=None if labels is None else labels_on(labels, content),
        )

    def keep_choices(self) -> None:
        """Keep content and style when result layers are added above them."""
        self.content.keep()
        self.style_source.keep()

    def style_name(self) -> str:
        """Return the name of the style for the result's layer."""
        style = self.style_source.value()
        return style.stem if isinstance(style, Path) else style.name

    def _decode_changed(self) -> None:
        is_residual = self.decode.value() == "residual"
        self.texture.setEnabled(is_residual)
        self.texture.setToolTip(
            TEXTURE if is_residual else "Not available for a full decode, which makes its own texture"
        )

    def _another_scan(self, layers: list[Layer]) -> Layer | None:
        content = self.content.value()
        return uppermost_scan([layer for layer in layers if layer is not content])

    def _exchange(self) -> None:
        content, style = self.content.value(), self.style_source.value()
        if isinstance(style, Layer) and content is not None:
            self.content.choose(style)
            self.style_source.choose(content)
