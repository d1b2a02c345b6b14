"""The examples of what is taught, one below the other, and labels to paint where there are none."""

from typing import TYPE_CHECKING

from napari.layers import Labels
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_meduet.gui.common.results import bring_into_view
from napari_meduet.gui.layers import (
    KEY,
    empty_labels,
    is_scan,
    is_segmented,
    is_synthetic,
    share_grid,
    uppermost_scan,
)
from napari_meduet.gui.segmentation.label_colormap import label_colormap
from napari_meduet.gui.segmentation.teach.example import TeachExample

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

PAINTING = {"kind": "painting"}  # what a layer that was made here to be painted says of itself
_BRUSH = 8  # voxels


class TeachExamples(QWidget):
    """Emits `changed` for other examples, or other labels in one of them."""

    changed = Signal()

    def __init__(self, viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self.rows: list[TeachExample] = []
        self.add = QPushButton("Add scan")
        self.add.setToolTip("Learn from one scan more")
        self.paint = QPushButton("New labels to paint")
        self._list = QVBoxLayout()
        self._list.setSpacing(4)
        buttons = QHBoxLayout()
        buttons.addWidget(self.add)
        buttons.addWidget(self.paint)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(self._list)
        column.addLayout(buttons)
        self.add.clicked.connect(self.add_row)
        self.paint.clicked.connect(self.add_painting)
        self.add_row()

    def pairs(self) -> "list[tuple[Layer, Labels]]":
        """Scan and labels of each example that has both."""
        both = ((row.scan.value(), row.labels.value()) for row in self.rows)
        return [(scan, labels) for scan, labels in both if scan is not None and labels is not None]

    def numbers(self) -> set[int]:
        """The labels that are in some example."""
        return {number for row in self.rows for number in row.watch.places}

    def disabled_reason(self) -> str:
        """Why nothing can be learnt from them; empty where something can."""
        if not self.rows:
            return "Add an example: a scan, and labels painted on it."
        scans = [row.scan.value() for row in self.rows]
        twice = next((scan for scan in scans if scan is not None and scans.count(scan) > 1), None)
        if twice is not None:
            return f"{twice.name!r} is an example twice: keep one of them."
        return next((disabled_reason for row in self.rows if (disabled_reason := row.disabled_reason())), "")

    def keep(self) -> None:
        """Stay with what is chosen, although results will lie above it."""
        for row in self.rows:
            row.keep()

    def add_row(self) -> TeachExample:
        """One example more, of a scan that is none yet where there is one."""
        row = TeachExample(self._viewer, self._next_scan, self._next_labels)
        row.keep()
        self.rows.append(row)
        self._list.addWidget(row)
        row.changed.connect(self._changed)
        row.unwanted.connect(lambda: self._remove(row))
        self._changed()
        return row

    def add_painting(self) -> None:
        """Labels without a label on the first scan that has none, ready to be painted on."""
        row = next((row for row in self.rows if row.labels.value() is None), None) or self.add_row()
        scan = row.scan.value()
        if scan is None:
            return
        data, state, _ = empty_labels(scan, f"labels of {scan.name}")
        layer = Labels(data, **state, metadata={KEY: PAINTING}, colormap=label_colormap())
        self._viewer.add_layer(layer)
        bring_into_view(self._viewer, layer)
        row.scan.choose(scan)
        row.labels.choose(layer)
        self._viewer.dims.ndisplay = 2
        self._viewer.layers.selection.active = layer
        layer.mode, layer.brush_size, layer.selected_label = "paint", _BRUSH, 1

    def paintings(self) -> list[Labels]:
        """The layers that were made here."""
        return [labels for _, labels in self.pairs() if labels.metadata.get(KEY) == PAINTING]

    def _next_scan(self, asking: TeachExample, layers: "list[Layer]") -> "Layer | None":
        """A scan that is no example yet."""
        used = [row.scan.value() for row in self.rows if row is not asking]
        return uppermost_scan([layer for layer in layers if layer not in used])

    def _next_labels(self, asking: TeachExample, layers: "list[Layer]") -> "Layer | None":
        """Labels on the scan's grid that a person made."""
        scan, used = asking.scan.value(), [row.labels.value() for row in self.rows if row is not asking]
        free = (layer for layer in layers if layer not in used and not is_segmented(layer))
        return next((layer for layer in free if scan is not None and share_grid(scan, layer)), None)

    def _remove(self, row: TeachExample) -> None:
        self.rows.remove(row)
        row.closed()
        row.deleteLater()
        self._changed()

    def _changed(self) -> None:
        scans = [layer for layer in self._viewer.layers if is_scan(layer) and not is_synthetic(layer)]
        lacking = any(row.scan.value() is not None and row.labels.value() is None for row in self.rows)
        free = [scan for scan in scans if scan not in [row.scan.value() for row in self.rows]]
        self.paint.setEnabled(lacking or bool(free))
        self.paint.setToolTip(
            "A Labels layer without a label on the scan that has none, the brush in your hand"
            if self.paint.isEnabled()
            else "Every open scan has labels; open another one"
        )
        self.changed.emit()
