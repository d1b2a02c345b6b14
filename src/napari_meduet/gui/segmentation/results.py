"""Segmentations in the viewer: always a layer of their own, on the voxels of the scan they were made of.

Somebody's labels are never touched: napari numbers a name that is taken.
"""

from typing import TYPE_CHECKING

from napari.layers import Labels

from napari_meduet.gui.common.results import bring_into_view
from napari_meduet.gui.layers import is_segmented, labels_layer
from napari_meduet.gui.segmentation.label_colormap import label_colormap

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_meduet.pipelines.segmentation.session import SegmentationResult

OPACITY = 0.5  # the scan is still seen beneath


def show_segmentation(
    viewer: "ViewerModel", result: "SegmentationResult", name: str, scan: "Layer"
) -> Labels:
    """A new layer of structures, named in its features, with the provenance in its metadata.

    Args:
        scan: the layer that was segmented, in the viewer or no longer. It is seen beneath the structures;
            other segmentations are hidden, and where the scan was, so is what would cover it.
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
