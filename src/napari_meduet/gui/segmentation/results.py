"""Segmentations in the viewer: a new Labels layer on the voxel grid of the segmented scan.

Existing layers keep their labels. napari adds a number to a name that is taken.
"""

from typing import TYPE_CHECKING

from napari.layers import Labels

from napari_meduet.gui.common.label_colormap import label_colormap
from napari_meduet.gui.common.results import bring_into_view
from napari_meduet.gui.layers import is_segmented, labels_layer

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_meduet.pipelines.segmentation.session import SegmentationResult

OPACITY = 0.5  # the scan stays visible under the labels


def show_segmentation(
    viewer: "ViewerModel", result: "SegmentationResult", name: str, scan: "Layer"
) -> Labels:
    """Add a layer of structures, with names in its features and provenance in its metadata, and return it.

    Other segmentations are hidden. A hidden scan is shown, and then all other layers are hidden.

    Args:
        scan: The segmented layer. It may have been removed from the viewer.
    """
    is_there = scan in viewer.layers
    covers = is_there and not scan.visible
    for other in viewer.layers:
        if covers or is_segmented(other):
            other.visible = False
    if is_there:
        scan.visible = True
    data, state, _ = labels_layer(result.label_volume(), name)
    layer = Labels(data, **state, colormap=label_colormap(), opacity=OPACITY)
    viewer.add_layer(layer)
    bring_into_view(viewer, layer)
    return layer
