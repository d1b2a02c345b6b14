"""What is in the segmentation that is selected: its structures and their volumes, as they are now.

Voxels are counted on the layer's own grid, again whenever it was painted on: the table says what is seen.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_meduet.gui.layers import is_segmented, voxel_ml
from napari_meduet.gui.segmentation.label_colormap import label_colormap
from napari_meduet.gui.segmentation.label_places import label_centre
from napari_meduet.gui.segmentation.label_watch import LabelWatch
from napari_meduet.gui.segmentation.structure_table import Structure, StructureTable
from napari_meduet.gui.synthesis.mask_classes import label_names

if TYPE_CHECKING:
    from napari.viewer import Viewer

_IN_SIGHT = 0.9  # of the canvas; a structure nearer to its edge is brought to the middle


class StructuresPanel(QWidget):
    """Hidden until there is a segmentation."""

    def __init__(self, viewer: "Viewer") -> None:
        super().__init__()
        self._viewer = viewer
        self._hidden: dict[Labels, frozenset[int]] = {}
        self.watch = LabelWatch(self)
        self.table = StructureTable()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.table)
        self.setVisible(False)
        self.watch.counted.connect(self._show)
        self.table.hidden_changed.connect(self._hide)
        self.table.visited.connect(self._visit)
        viewer.layers.selection.events.active.connect(self._selected)
        viewer.layers.events.removed.connect(self._removed)
        viewer.layers.events.renamed.connect(self._renamed)

    def closed(self) -> None:
        """Its dock is no longer in a window."""
        self.watch.follow(None)
        self._viewer.layers.selection.events.active.disconnect(self._selected)
        self._viewer.layers.events.removed.disconnect(self._removed)
        self._viewer.layers.events.renamed.disconnect(self._renamed)

    def _show(self) -> None:
        layer = self.watch.layer
        assert layer is not None
        names, volume = label_names(layer), voxel_ml(layer)
        structures = [
            Structure(label, names.get(label, f"label {label}"), place.num_voxels * volume)
            for label, place in self.watch.places.items()
        ]
        self.table.show_structures(structures, self._hidden.get(layer, frozenset()))
        self._renamed()
        self.setVisible(True)

    # What is pressed in the table

    def _hide(self, hidden: frozenset[int]) -> None:
        layer = self.watch.layer
        if layer is not None:
            self._hidden[layer] = hidden
            layer.colormap = label_colormap(hidden)

    def _visit(self, label: int) -> None:
        layer = self.watch.layer
        if layer is None or label not in self.watch.places:
            return
        centre = label_centre(np.asarray(layer.data), label, self.watch.places[label].plane)
        if centre is None:
            return  # painted over since it was counted
        layer.selected_label = label
        dims, camera = self._viewer.dims, self._viewer.scene.camera
        point = np.asarray(layer.data_to_world(centre), float)
        dims.set_point(range(dims.ndim - 3, dims.ndim), point.tolist())
        shown = [axis - (dims.ndim - 3) for axis in dims.displayed]
        away = np.abs(point[shown] - np.asarray(camera.center)[-len(shown) :])
        seen = np.asarray(self._viewer.canvas.size)[-2:] / camera.zoom / 2
        if len(shown) == 2 and np.any(away > _IN_SIGHT * seen):
            camera.center = tuple(point[shown])

    # What happens in the viewer

    def _selected(self) -> None:
        layer = self._viewer.layers.selection.active
        if isinstance(layer, Labels) and is_segmented(layer):
            self.watch.follow(layer)

    def _removed(self, event: Any) -> None:
        self._hidden.pop(event.value, None)
        if event.value is self.watch.layer:
            self.watch.follow(None)
            self.setVisible(False)

    def _renamed(self) -> None:
        if self.watch.layer is not None:
            self.table.title.setText(f"In {self.watch.layer.name}:")
