"""Show the structures of the selected segmentation and their current volumes.

Voxels are counted on the layer's own grid, and again after each change, so that the table matches the layer.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtWidgets import QWidget

from napari_meduet.gui.common.forms import fill_column
from napari_meduet.gui.common.label_colormap import label_colormap
from napari_meduet.gui.common.label_counter import LabelCounter
from napari_meduet.gui.common.label_counts import label_centre
from napari_meduet.gui.common.label_features import label_names
from napari_meduet.gui.layers import is_segmented, layer_voxel_ml
from napari_meduet.gui.segmentation.structure_table import Structure, StructureTable

if TYPE_CHECKING:
    from napari.viewer import Viewer

_VISIBLE = 0.9  # fraction of the canvas; the camera moves to a structure outside it


class StructuresPanel(QWidget):
    """The table of structures. It is hidden until a segmentation is selected."""

    def __init__(self, viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self._hidden: dict[Labels, frozenset[int]] = {}
        self.counter = LabelCounter(self)
        self.table = StructureTable()
        fill_column(self, self.table)
        self.setVisible(False)
        self.counter.counted.connect(self._show)
        self.table.hidden_changed.connect(self._hide)
        self.table.visited.connect(self._visit)
        viewer.layers.selection.events.active.connect(self._selected)
        viewer.layers.events.removed.connect(self._removed)
        viewer.layers.events.renamed.connect(self._renamed)

    def closed(self) -> None:
        """Stop counting and disconnect from the viewer. Called when the dock leaves its window."""
        self.counter.follow(None)
        self._viewer.layers.selection.events.active.disconnect(self._selected)
        self._viewer.layers.events.removed.disconnect(self._removed)
        self._viewer.layers.events.renamed.disconnect(self._renamed)

    def _show(self) -> None:
        layer = self.counter.layer
        assert layer is not None
        names, volume = label_names(layer), layer_voxel_ml(layer)
        structures = [
            Structure(label, names.get(label, f"label {label}"), count.num_voxels * volume)
            for label, count in self.counter.counts.items()
        ]
        self.table.show_structures(structures, self._hidden.get(layer, frozenset()))
        self._renamed()
        self.setVisible(True)

    # Actions in the table

    def _hide(self, hidden: frozenset[int]) -> None:
        layer = self.counter.layer
        if layer is not None:
            self._hidden[layer] = hidden
            layer.colormap = label_colormap(hidden)

    def _visit(self, label: int) -> None:
        layer = self.counter.layer
        if layer is None or label not in self.counter.counts:
            return
        centre = label_centre(np.asarray(layer.data), label, self.counter.counts[label].plane)
        if centre is None:
            return  # the user painted over the label after the latest count
        layer.selected_label = label
        dims, camera = self._viewer.dims, self._viewer.scene.camera
        point = np.asarray(layer.data_to_world(centre), float)
        dims.set_point(range(dims.ndim - 3, dims.ndim), point.tolist())
        shown = [axis - (dims.ndim - 3) for axis in dims.displayed]
        offset = np.abs(point[shown] - np.asarray(camera.center)[-len(shown) :])
        half_canvas = np.asarray(self._viewer.canvas.size)[-2:] / camera.zoom / 2
        if len(shown) == 2 and np.any(offset > _VISIBLE * half_canvas):
            camera.center = tuple(point[shown])

    # Events of the viewer

    def _selected(self) -> None:
        layer = self._viewer.layers.selection.active
        if isinstance(layer, Labels) and is_segmented(layer):
            self.counter.follow(layer)

    def _removed(self, event: Any) -> None:
        self._hidden.pop(event.value, None)
        if event.value is self.counter.layer:
            self.counter.follow(None)
            self.setVisible(False)

    def _renamed(self) -> None:
        if self.counter.layer is not None:
            self.table.title.setText(f"In {self.counter.layer.name}:")
