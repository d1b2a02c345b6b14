"""The form of a segmentation: which scan, and what stands in the way, in words."""

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from napari_meduet.errors import InputError
from napari_meduet.gui.common.forms import LayerBox, rows
from napari_meduet.gui.layers import is_scan, modality_of, uppermost_scan

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_meduet.gui.common.device_box import DeviceBox
    from napari_meduet.gui.common.model_box import ModelBox


class SegmentationForm(QWidget):
    """Emits `changed`; model and device are the dock's."""

    changed = Signal()

    def __init__(self, viewer: "ViewerModel", model: "ModelBox", device: "DeviceBox") -> None:
        super().__init__()
        self._model, self._device = model, device
        self.scan = LayerBox(viewer, is_scan, placeholder="no scan yet", default=uppermost_scan)
        self.scan.setToolTip("The scan whose structures are found")
        self.largest_parts = QCheckBox("Keep only the largest part of each")
        self.largest_parts.setToolTip(
            "Removes scattered bits; not for structures that come in several pieces"
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(rows(("Scan", self.scan), ("", self.largest_parts)))
        self.scan.changed.connect(self.changed)

    def disabled_reason(self) -> str:
        """Why there is nothing to run yet; empty where there is."""
        try:
            card = self._model.card()
        except InputError as error:
            return str(error)
        if card.segmenter is None:
            return f"The model {card.name} has no segmenter: choose another, or teach it under Teach."
        scan = self.scan.value()
        if scan is None:
            return "Choose the scan to segment: File ▸ Open, or File ▸ Open Sample ▸ MeDUET."
        known, modality = card.segmenter.modalities, modality_of(scan)
        if modality is not None and modality not in known:
            return (
                f"{scan.name!r} is {modality}; the segmenter of {card.name} knows {' and '.join(known)}: "
                "choose another model, or teach it under Teach."
            )
        return ""

    def options(self) -> dict[str, Any]:
        """What a request says beside the scan."""
        return {
            "model": self._model.path(),
            "device": self._device.value(),
            "largest_parts": self.largest_parts.isChecked(),
        }
