"""New volumes in the viewer: one layer while noise leaves them, a layer for each once they are done.

Every name says synthetic; a volume that was stopped says partial as well. A layer that was there is never
touched, and the preview's own goes where the work fails: nothing unfinished is shown as if it were whole.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari.layers import Image

from napari_meduet.gui.common.results import bring_into_view, link_while_both_stay
from napari_meduet.gui.layers import image_layer, scan_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.utils.events import Event

    from napari_meduet.pipelines.synthesis.outputs import Preview, SynthesisResult
    from napari_meduet.volumes.volume import Volume


class SynthesisView:
    """What one run shows."""

    def __init__(self, viewer: "ViewerModel", name: str, like: Image | None = None) -> None:
        """
        Args:
            like: a scan or result whose colour limits it takes over, where both are of one modality.
        """
        self._viewer, self._name, self._like = viewer, name, like
        self._layer: Image | None = None  # of the preview, then of the first result
        self._was_removed = False
        self.layers: list[Image] = []
        viewer.layers.events.removed.connect(self._removed)

    def preview(self, preview: "Preview") -> None:
        """Show what a volume is so far, in the layer of the preview before."""
        told = f" · step {preview.step} of {preview.num_steps}"
        volume = replace(preview.volume, synthetic={"synthetic": True, "kind": "preview"})
        if self._layer is not None:
            self._redraw(self._layer, volume, self._name + told)
        elif not self._was_removed:
            self._layer = self._add(volume, self._name + told)

    def show(self, result: "SynthesisResult") -> None:
        """Show the volumes; the first in the preview's layer, where that is still there."""
        for number, (volume, record) in enumerate(zip(result.samples, result.provenances, strict=True)):
            name = self._title(record["parameters"])
            if number == 0 and self._layer is not None:
                self._redraw(self._layer, volume, name)
                self.layers.append(self._layer)
            else:
                self.layers.append(self._add(volume, name))

    def withdraw(self) -> None:
        """Take the preview away: there is no result."""
        if self._layer is not None:
            self._viewer.layers.remove(self._layer)

    def _title(self, parameters: dict[str, Any]) -> str:
        told = f" · {parameters['number']} of {parameters['count']}" if parameters["count"] > 1 else ""
        if parameters["is_partial"]:
            told += f" · partial, step {parameters['steps_done']} of {parameters['steps']}"
        return self._name + told

    def _add(self, volume: "Volume", name: str) -> Image:
        data, state, _ = image_layer(volume, name)
        layer = Image(data, **state)
        like = self._like if self._like in self._viewer.layers else None
        if like is not None and scan_of(like).modality == volume.modality:
            layer.contrast_limits, layer.gamma = limits_of(like), like.gamma
        else:
            like = None
        self._viewer.add_layer(layer)
        bring_into_view(self._viewer, layer)
        if like is not None:
            link_while_both_stay(self._viewer.layers, like, layer)
        return layer

    def _redraw(self, layer: Image, volume: "Volume", name: str) -> None:
        data, state, _ = image_layer(volume, name)
        layer.data = data  # pyright: ignore[reportAttributeAccessIssue]
        layer.metadata = state["metadata"]
        layer.name = name

    def _removed(self, event: "Event") -> None:
        if event.value is self._layer:
            self._layer, self._was_removed = None, True
        if event.value in self.layers:
            self.layers.remove(event.value)


def limits_of(layer: Image) -> tuple[float, float]:
    """The values that a layer draws black and white."""
    low, high = layer.contrast_limits
    assert low is not None
    assert high is not None
    return low, high
