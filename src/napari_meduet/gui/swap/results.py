"""Swap results in the viewer: a layer on the scan's own grid, with the scan's own contrast.

Contrast limits and gamma of the scan and its result are linked while both are in the viewer, so that each
visible difference is a difference of voxels. Each run has its own layer. Only a change of strength or texture
redraws it.
"""

from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import ref

import numpy as np
from napari.layers import Image
from napari.utils import Colormap

from napari_meduet.gui.common.results import bring_into_view, link_contrast
from napari_meduet.gui.layers import DIFFERENCE, KEY, image_layer, scan_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.utils.events import Event

    from napari_meduet.pipelines.style_swap.session import SwapResult

_DARKER_BRIGHTER = Colormap(  # black where nothing changed, so that the layer can be added over the scan
    [[0.25, 0.65, 1.0], [0.0, 0.0, 0.0], [1.0, 0.6, 0.15]], name="darker-brighter"
)
_DIFFERENCE_PERCENTILE = 99.8  # of absolute changes; a few extreme voxels must not hide all others


class SwapView:
    """The layers of one swap: its result and, if requested, its difference to the content scan."""

    def __init__(self, viewer: "ViewerModel", content: Image, style_name: str) -> None:
        """Copy what the result needs from the content layer, which may be removed while the job runs."""
        self._viewer = viewer
        self._content = ref(content)
        self._name = f"{content.name} ▸ style of {style_name}"
        self._display = {
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
        """The result's layer; None when it is not in the viewer."""
        return self._layer

    @property
    def is_source_gone(self) -> bool:
        """Whether the content layer was removed from the viewer."""
        return self._content() not in self._viewer.layers

    def show(self, result: "SwapResult", strength: float) -> Image:
        """Add a layer for the result, or redraw the layer of an earlier call. Return the layer."""
        scan = replace(result.volume, synthetic=result.provenance)
        data, state, _ = image_layer(scan, self._title(result, strength))
        layer = self._layer
        if layer is None:
            layer = self._layer = Image(data, **(state | self._display))
            self._viewer.add_layer(layer)
            bring_into_view(self._viewer, layer)
            content = self._content()
            if content is not None and content in self._viewer.layers:
                link_contrast(self._viewer.layers, content, layer)
        else:
            layer.data = data  # pyright: ignore[reportAttributeAccessIssue]
            layer.metadata = state["metadata"]
            if layer.name == self._given_name:  # otherwise the user renamed the layer
                layer.name = state["name"]
        self._given_name = layer.name
        if self._difference is not None:
            self._difference.data = self._change(layer)  # pyright: ignore[reportAttributeAccessIssue]
        return layer

    def show_difference(self, is_shown: bool) -> None:
        """Add or remove the difference layer: orange where brighter than the scan, blue where darker."""
        if not is_shown and self._difference is not None:
            self._viewer.layers.remove(self._difference)
        elif is_shown and self._difference is None and self._layer is not None:
            change = self._change(self._layer)
            extent = float(np.percentile(np.abs(change[::2, ::2, ::2]), _DIFFERENCE_PERCENTILE)) or 1.0
            _, state, _ = image_layer(scan_of(self._layer), f"difference: {self._name}")
            display = {
                "metadata": state["metadata"] | {KEY: DIFFERENCE},
                "contrast_limits": (-extent, extent),
                "colormap": _DARKER_BRIGHTER,
                "blending": "additive",
            }
            self._difference = Image(change, **(state | display))
            self._viewer.add_layer(self._difference)

    def _change(self, layer: Image) -> np.ndarray:
        return np.asarray(layer.data, dtype=np.float32) - self._before

    def _title(self, result: "SwapResult", strength: float) -> str:
        suffix = "" if strength == 1 else f" ({strength:.0%})"
        return self._name + suffix + (" · refused" if result.report.verdict == "refuse" else "")

    def _layer_removed(self, event: "Event") -> None:
        if event.value is self._difference:
            self._difference = None
        if event.value is self._layer:
            self._layer = None
