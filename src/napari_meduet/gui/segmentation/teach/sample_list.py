"""The list of training samples of the Teach page, and a button that adds an empty Labels layer."""

from typing import TYPE_CHECKING

from napari.layers import Labels
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_meduet.gui.common.forms import fill_column
from napari_meduet.gui.common.label_colormap import label_colormap
from napari_meduet.gui.common.results import bring_into_view
from napari_meduet.gui.layers import (
    KEY,
    empty_labels,
    is_original_scan,
    is_segmented,
    share_grid,
    uppermost_scan,
)
from napari_meduet.gui.segmentation.teach.sample_row import SampleRow

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

PAINTING = {"kind": "painting"}  # metadata of a layer that `add_painting` made
_BRUSH = 8  # voxels


class SampleList(QWidget):
    """Emits `changed` when samples are added or removed, or when the labels of one change."""

    changed = Signal()

    def __init__(self, viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self.rows: list[SampleRow] = []
        self.add = QPushButton("Add scan")
        self.add.setToolTip("Add a training sample")
        self.paint = QPushButton("New labels to paint")
        self._list = QVBoxLayout()
        self._list.setSpacing(4)
        buttons = QHBoxLayout()
        buttons.addWidget(self.add)
        buttons.addWidget(self.paint)
        fill_column(self, self._list, buttons)
        self.add.clicked.connect(self.add_row)
        self.paint.clicked.connect(self.add_painting)
        self.add_row()

    def pairs(self) -> "list[tuple[Layer, Labels]]":
        """Return scan and labels of each sample that has both."""
        both = ((row.scan.value(), row.labels.value()) for row in self.rows)
        return [(scan, labels) for scan, labels in both if scan is not None and labels is not None]

    def numbers(self) -> set[int]:
        """Return the labels that occur in any sample."""
        return {number for row in self.rows for number in row.counter.counts}

    def disabled_reason(self) -> str:
        """Return why these samples cannot be used for training; empty if they can."""
        if not self.rows:
            return "Add a sample: a scan, and labels painted on it."
        scans = [row.scan.value() for row in self.rows]
        twice = next((scan for scan in scans if scan is not None and scans.count(scan) > 1), None)
        if twice is not None:
            return f"{twice.name!r} is in the list twice: remove one of the two samples."
        return next((reason for row in self.rows if (reason := row.disabled_reason())), "")

    def keep(self) -> None:
        """Keep the chosen layers when layers are added later."""
        for row in self.rows:
            row.keep()

    def add_row(self) -> SampleRow:
        """Add a sample, with a scan that no other sample uses if there is one, and return its row."""
        row = SampleRow(self._viewer, self._next_scan, self._next_labels)
        row.keep()
        self.rows.append(row)
        self._list.addWidget(row)
        row.changed.connect(self._changed)
        row.remove_requested.connect(lambda: self._remove(row))
        self._changed()
        return row

    def add_painting(self) -> None:
        """Add an empty Labels layer on the first scan without labels, and select its brush."""
        row = next((row for row in self.rows if row.labels.value() is None), None) or self.add_row()
        scan = row.scan.value()
        if scan is None:
            return
        data, state, _ = empty_labels(scan, f"labels of {scan.name}")
        state["metadata"] |= {KEY: PAINTING}
        layer = Labels(data, **state, colormap=label_colormap())
        self._viewer.add_layer(layer)
        bring_into_view(self._viewer, layer)
        row.scan.choose(scan)
        row.labels.choose(layer)
        self._viewer.dims.ndisplay = 2
        self._viewer.layers.selection.active = layer
        layer.mode, layer.brush_size, layer.selected_label = "paint", _BRUSH, 1

    def paintings(self) -> list[Labels]:
        """Return the Labels layers of samples that `add_painting` made."""
        return [labels for _, labels in self.pairs() if labels.metadata.get(KEY) == PAINTING]

    def _next_scan(self, new: SampleRow, layers: "list[Layer]") -> "Layer | None":
        """Return a scan that no other sample uses."""
        used = [row.scan.value() for row in self.rows if row is not new]
        return uppermost_scan([layer for layer in layers if layer not in used])

    def _next_labels(self, new: SampleRow, layers: "list[Layer]") -> "Layer | None":
        """Return labels on the scan's grid that no model made and no other sample uses."""
        scan, used = new.scan.value(), [row.labels.value() for row in self.rows if row is not new]
        free = (layer for layer in layers if layer not in used and not is_segmented(layer))
        return next((layer for layer in free if scan is not None and share_grid(scan, layer)), None)

    def _remove(self, row: SampleRow) -> None:
        self.rows.remove(row)
        row.closed()
        row.deleteLater()
        self._changed()

    def _changed(self) -> None:
        scans = [layer for layer in self._viewer.layers if is_original_scan(layer)]
        lacks_labels = any(row.scan.value() is not None and row.labels.value() is None for row in self.rows)
        free = [scan for scan in scans if scan not in [row.scan.value() for row in self.rows]]
        self.paint.setEnabled(lacks_labels or bool(free))
        self.paint.setToolTip(
            "Add an empty Labels layer on the next scan without labels, and select the brush"
            if self.paint.isEnabled()
            else "Every open scan has labels; open another scan"
        )
        self.changed.emit()
