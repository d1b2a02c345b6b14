"""Helpers for results in the viewer: move the sliders to a layer, and link the contrast of two layers."""

from typing import TYPE_CHECKING

from napari.experimental import link_layers, unlink_layers

if TYPE_CHECKING:
    from napari.components import LayerList, ViewerModel
    from napari.layers import Image, Layer
    from napari.utils.events import Event

LINKED = ("contrast_limits", "gamma")


def bring_into_view(viewer: "ViewerModel", layer: "Layer") -> None:
    """Move the viewer's sliders to the middle of a layer, unless they are inside it already."""
    low, high = layer.extent.world
    point = viewer.dims.point[-layer.ndim :]
    if not all(a <= p <= b for a, p, b in zip(low, point, high, strict=True)):
        axes = range(viewer.dims.ndim - layer.ndim, viewer.dims.ndim)
        viewer.dims.set_point(axes, (low + high) / 2)


def link_contrast(layers: "LayerList", one: "Image", other: "Image") -> None:
    """Link contrast limits and gamma of two layers until one of them is removed."""
    link_layers([one, other], LINKED)

    def unlink(event: "Event") -> None:
        if event.value in (one, other):
            unlink_layers([one, other], LINKED)
            layers.events.removed.disconnect(unlink)

    layers.events.removed.connect(unlink)
