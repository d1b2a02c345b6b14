"""Results in the viewer: a layer on the scan's own grid, seen through the scan's own colour limits.

Limits and gamma of scan and result are linked both ways while both are in the viewer, so that the change
seen is the change made. A result never replaces another run's; only the strength of its own run redraws it.
"""

from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import ref

import numpy as np
from napari.experimental import link_layers, unlink_layers
from napari.layers import Image
from napari.utils import Colormap

from napari_meduet.gui.layers import DIFFERENCE, KEY, image_layer, scan_of

if TYPE_CHECKING:
    from napari.components import LayerList, ViewerModel
    from napari.layers import Layer
    from napari.utils.events import Event

    from napari_meduet.pipelines.swap.session import SwapResult

LINKED = ("contrast_limits", "gamma")
_DARKER_BRIGHTER = Colormap(  # black where nothing changed, so that it can lie over the scan
    [[0.25, 0.65, 1.0], [0.0, 0.0, 0.0], [1.0, 0.6, 0.15]], name="darker-brighter"
)
_DIFFERENCE_PERCENTILE = 99.8  # of absolute changes; a few voxels must not make all others invisible


def bring_into_view(viewer: "ViewerModel", layer: "Layer") -> None:
    """Move the sliders to the middle of a layer where they stand outside it; else leave them."""
    low, high = layer.extent.world
    point = viewer.dims.point[-layer.ndim :]
    if not all(a <= p <= b for a, p, b in zip(low, point, high, strict=True)):
        axes = range(viewer.dims.ndim - layer.ndim, viewer.dims.ndim)
        viewer.dims.set_point(axes, (low + high) / 2)


def link_while_both_stay(layers: "LayerList", one: Image, other: Image) -> None:
    """Link colour limits and gamma of two layers until one of them is removed."""
    link_layers([one, other], LINKED)

    def unlink(event: "Event") -> None:
        if event.value in (one, other):
            unlink_layers([one, other], LINKED)
            layers.events.removed.disconnect(unlink)

    layers.events.removed.connect(unlink)


class ResultView:
    """What one run shows: its result, and on wish the difference to the scan it was made of."""

    def __init__(self, viewer: "ViewerModel", content: Image, style_name: str) -> None:
        """Remember what the result needs to know of the scan's layer, should that go while the work runs."""
        self._viewer = viewer
        self._content = ref(content)
        self._name = f"{content.name} ▸ style of {style_name}"
        self._look = {
            name: getattr(content, name)
            for name in ("contrast_limits", "gamma", "colormap", "interpolation2d", "interpolation3d")
        }
        self._before: np.ndarray = np.asarray(content.data)
        self._layer: Image | None = None
        self._difference: Image | None = None
        self._given_name = ""
        viewer.layers.events.removed.connect(self._layer_removed)

    @property
    def layer(self) -> Image | None:
        """The result's layer while it is in the viewer."""
        return self._layer

    @property
    def is_source_gone(self) -> bool:
        """Whether the scan's layer has left the viewer."""
        return self._content() not in self._viewer.layers

    def show(self, result: "SwapResult", strength: float) -> Image:
        """Show a result, or redraw the one shown."""
        scan = replace(result.volume, synthetic=result.provenance)
        data, state, _ = image_layer(scan, self._title(result, strength))
        layer = self._layer
        if layer is None:
            layer = self._layer = Image(data, **(state | self._look))
            self._viewer.add_layer(layer)
            bring_into_view(self._viewer, layer)
            content = self._content()
            if content is not None and content in self._viewer.layers:
                link_while_both_stay(self._viewer.layers, content, layer)
        else:
            layer.data = data  # pyright: ignore[reportAttributeAccessIssue]
            layer.metadata = state["metadata"]
            if layer.name == self._given_name:  # else the user found a better one
                layer.name = state["name"]
        self._given_name = layer.name
        if self._difference is not None:
            self._difference.data = self._change(layer)  # pyright: ignore[reportAttributeAccessIssue]
        return layer

    def show_difference(self, is_wanted: bool) -> None:
        """Lay what changed over the scan, orange where brighter and blue where darker; or take it away."""
        if not is_wanted and self._difference is not None:
            self._viewer.layers.remove(self._difference)
        elif is_wanted and self._difference is None and self._layer is not None:
            change = self._change(self._layer)
            extent = float(np.percentile(np.abs(change[::2, ::2, ::2]), _DIFFERENCE_PERCENTILE)) or 1.0
            _, place, _ = image_layer(scan_of(self._layer), f"difference: {self._name}")
            look = {
                "metadata": {KEY: DIFFERENCE},
                "contrast_limits": (-extent, extent),
                "colormap": _DARKER_BRIGHTER,
                "blending": "additive",
            }
            self._difference = Image(change, **(place | look))
            self._viewer.add_layer(self._difference)

    def _change(self, layer: Image) -> np.ndarray:
        return np.asarray(layer.data, dtype=np.float32) - self._before

    def _title(self, result: "SwapResult", strength: float) -> str:
        part = "" if strength == 1 else f" ({strength:.0%})"
        return self._name + part + (" · refused" if result.report.verdict == "refuse" else "")

    def _layer_removed(self, event: "Event") -> None:
        if event.value is self._difference:
            self._difference = None
        if event.value is self._layer:
            self._layer = None
