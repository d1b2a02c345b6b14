"""One training sample of the Teach page: a scan and its labels."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from napari.layers import Labels
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QToolButton, QWidget

from napari_meduet.gui.common.forms import LayerBox
from napari_meduet.gui.common.label_counter import LabelCounter
from napari_meduet.gui.layers import is_label_volume, is_scan, share_grid

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer


class SampleRow(QWidget):
    """Emits `changed` when its layers or labels change, and `remove_requested` for its remove button."""

    changed = Signal()
    remove_requested = Signal()

    def __init__(
        self,
        viewer: "ViewerModel",
        next_scan: "Callable[[SampleRow, list[Layer]], Layer | None]",
        next_labels: "Callable[[SampleRow, list[Layer]], Layer | None]",
    ) -> None:
        """
        Args:
            next_scan: Returns the default scan of a row, from the given layers.
            next_labels: Returns the default labels of a row, from the given layers.
        """
        super().__init__()
        self.counter = LabelCounter(self)
        self.scan = LayerBox(
            viewer, is_scan, placeholder="scan", default=lambda layers: next_scan(self, layers)
        )
        self.scan.setToolTip("Scan of this sample")
        self.labels = LayerBox(
            viewer,
            is_label_volume,
            placeholder="labels",
            default=lambda layers: next_labels(self, layers),
        )
        self.labels.setToolTip("Labels painted on this scan")
        self.remove = QToolButton()
        self.remove.setText("✕")
        self.remove.setToolTip("Remove this sample")
        self.remove.setAccessibleName("Remove this sample")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        row.addWidget(self.scan, 1)
        row.addWidget(self.labels, 1)
        row.addWidget(self.remove)
        self.scan.changed.connect(self.labels.refill)
        self.scan.changed.connect(self.changed)
        self.labels.changed.connect(self._labels_changed)
        self.counter.counted.connect(self.changed)
        self.remove.clicked.connect(self.remove_requested)
        self._labels_changed()

    def disabled_reason(self) -> str:
        """Return why this sample cannot be used for training; empty if it can."""
        scan, labels = self.scan.value(), self.labels.value()
        if scan is None:
            return "Choose the scan of each sample: File ▸ Open."
        if labels is None:
            return f"{scan.name!r} has no labels: choose a Labels layer, or press New labels to paint."
        if not share_grid(scan, labels):
            return (
                f"{labels.name!r} has another voxel grid than {scan.name!r}: choose labels of this scan, or "
                "paint new ones."
            )
        if self.counter.counts or self.counter.is_counting:
            return ""
        return f"Nothing is painted in {labels.name!r} yet."

    def keep(self) -> None:
        """Keep the chosen layers when layers are added later."""
        self.scan.keep()
        self.labels.keep()

    def closed(self) -> None:
        """Stop counting labels. Called when the row is removed."""
        self.counter.follow(None)

    def _labels_changed(self) -> None:
        labels = self.labels.value()
        self.counter.follow(labels if isinstance(labels, Labels) else None)
        if labels is not None:
            self.keep()  # a scan that is opened later must not replace the scan of these labels
        self.changed.emit()
