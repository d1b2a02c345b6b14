"""The form of a segmentation: its scan, its options, and the reason why it cannot run."""

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QWidget

from napari_meduet.errors import InputError
from napari_meduet.gui.common.forms import LayerBox, fill_column, rows
from napari_meduet.gui.layers import is_scan, modality_of, uppermost_scan

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_meduet.gui.common.device_box import DeviceBox
    from napari_meduet.gui.common.model_box import ModelBox


class SegmentationForm(QWidget):
    """Scan and options of a segmentation. The dock owns the model and device boxes."""

    changed = Signal()

    def __init__(self, viewer: "ViewerModel", model: "ModelBox", device: "DeviceBox") -> None:
        super().__init__()
        self._model, self._device = model, device
        self.scan = LayerBox(viewer, is_scan, placeholder="no scan yet", default=uppermost_scan)
        self.scan.setToolTip("Scan to segment")
        self.largest_parts = QCheckBox("Keep only the largest part of each")
        self.largest_parts.setToolTip(
            "Remove small separate parts of each structure.\nDo not use it for structures with several parts."
        )
        fill_column(self, rows(("Scan", self.scan), ("", self.largest_parts)))
        self.scan.changed.connect(self.changed)

    def disabled_reason(self) -> str:
        """Return why a segmentation cannot run; empty if it can."""
        try:
            card = self._model.card()
        except InputError as error:
            return str(error)
        if card.segmenter is None:
            return f"The model {card.name} has no segmenter: choose another model, or train one under Teach."
        scan = self.scan.value()
        if scan is None:
            return "Choose the scan to segment: File ▸ Open, or File ▸ Open Sample ▸ MeDUET."
        known, modality = card.segmenter.modalities, modality_of(scan)
        if modality is not None and modality not in known:
            return (
                f"{scan.name!r} is {modality}, but the segmenter of {card.name} reads {' and '.join(known)}: "
                "choose another model, or train one under Teach."
            )
        return ""

    def options(self) -> dict[str, Any]:
        """Return the fields of a request, except the scan."""
        return {
            "model": self._model.path(),
            "device": self._device.value(),
            "largest_parts": self.largest_parts.isChecked(),
        }
