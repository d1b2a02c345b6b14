"""One example of what is taught: a scan and the labels on it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from napari.layers import Labels
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QToolButton, QWidget

from napari_meduet.gui.common.forms import LayerBox
from napari_meduet.gui.layers import is_label_volume, is_scan, share_grid
from napari_meduet.gui.segmentation.label_watch import LabelWatch

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer


class TeachExample(QWidget):
    """Emits `changed` for other layers or labels in them, `unwanted` when it shall go."""

    changed = Signal()
    unwanted = Signal()

    def __init__(
        self,
        viewer: "ViewerModel",
        next_scan: "Callable[[TeachExample, list[Layer]], Layer | None]",
        next_labels: "Callable[[TeachExample, list[Layer]], Layer | None]",
    ) -> None:
        """
        Args:
            next_scan: of the layers given, the one to choose for an example while nobody chose.
            next_labels: the labels to choose for the scan of an example.
        """
        super().__init__()
        self.watch = LabelWatch(self)
        self.scan = LayerBox(
            viewer, is_scan, placeholder="scan", default=lambda layers: next_scan(self, layers)
        )
        self.scan.setToolTip("A scan to learn from")
        self.labels = LayerBox(
            viewer,
            is_label_volume,
            placeholder="labels",
            default=lambda layers: next_labels(self, layers),
        )
        self.labels.setToolTip("What is painted on it")
        self.remove = QToolButton()
        self.remove.setText("✕")
        self.remove.setToolTip("Learn without this example")
        self.remove.setAccessibleName("Remove the example")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        row.addWidget(self.scan, 1)
        row.addWidget(self.labels, 1)
        row.addWidget(self.remove)
        self.scan.changed.connect(self.labels.refill)
        self.scan.changed.connect(self.changed)
        self.labels.changed.connect(self._labels_changed)
        self.watch.counted.connect(self.changed)
        self.remove.clicked.connect(self.unwanted)
        self._labels_changed()

    def disabled_reason(self) -> str:
        """Why nothing can be learnt from it; empty where something can."""
        scan, labels = self.scan.value(), self.labels.value()
        if scan is None:
            return "Choose the scan of each example: File ▸ Open."
        if labels is None:
            return f"{scan.name!r} has no labels: choose a Labels layer, or press New labels to paint."
        if not share_grid(scan, labels):
            return (
                f"{labels.name!r} lies on another grid than {scan.name!r}: choose labels of this scan, or "
                "paint new ones."
            )
        if self.watch.places or self.watch.is_counting:
            return ""
        return f"Nothing is painted in {labels.name!r} yet."

    def keep(self) -> None:
        """Stay with what is chosen, although results will lie above it."""
        for box in (self.scan, self.labels):
            if box.value() is not None:
                box.choose(box.value())

    def closed(self) -> None:
        """It is no longer wanted."""
        self.watch.follow(None)

    def _labels_changed(self) -> None:
        labels = self.labels.value()
        self.watch.follow(labels if isinstance(labels, Labels) else None)
        if labels is not None:
            self.keep()  # another scan that is opened has nothing to do with these labels
        self.changed.emit()
