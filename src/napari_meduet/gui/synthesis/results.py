"""Synthetic volumes in the viewer: one preview layer during sampling, and then a layer for each volume.

Every layer name contains "synthetic", and "partial" if the sampling was cancelled. Existing layers are not
changed. If the job fails, the preview layer is removed, so that it is not mistaken for a result.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari.layers import Image

from napari_meduet.gui.common.results import bring_into_view, link_contrast
from napari_meduet.gui.layers import image_layer, scan_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.utils.events import Event

    from napari_meduet.pipelines.synthesis.outputs import Preview, SynthesisResult
    from napari_meduet.volumes.volume import Volume


class SynthesisView:
    """The layers of one run."""

    def __init__(self, viewer: "ViewerModel", name: str, like: Image | None = None) -> None:
        """
        Args:
            name: Name of the layers, without the suffix for step or number.
            like: Layer whose contrast the new layers use, if both have the same modality.
        """
        self._viewer, self._name, self._like = viewer, name, like
        self._layer: Image | None = None  # the preview, and later the first result
        self._was_removed = False
        self.layers: list[Image] = []
        viewer.layers.events.removed.connect(self._removed)

    def preview(self, preview: "Preview") -> None:
        """Show a preview in the preview layer."""
        name = f"{self._name} · step {preview.step} of {preview.num_steps}"
        volume = replace(preview.volume, synthetic={"synthetic": True, "kind": "preview"})
        if self._layer is not None:
            self._redraw(self._layer, volume, name)
        elif not self._was_removed:
            self._layer = self._add(volume, name)

    def show(self, result: "SynthesisResult") -> None:
        """Show the volumes. The first one replaces the preview, if the user did not remove that layer."""
        for number, (volume, record) in enumerate(zip(result.samples, result.provenances, strict=True)):
            name = self._title(record["parameters"])
            if number == 0 and self._layer is not None:
                self._redraw(self._layer, volume, name)
                self.layers.append(self._layer)
            else:
                self.layers.append(self._add(volume, name))

    def withdraw(self) -> None:
        """Remove the preview, because there is no result."""
        if self._layer is not None:
            self._viewer.layers.remove(self._layer)

    def _title(self, parameters: dict[str, Any]) -> str:
        suffix = f" · {parameters['number']} of {parameters['count']}" if parameters["count"] > 1 else ""
        if parameters["is_partial"]:
            suffix += f" · partial, step {parameters['steps_done']} of {parameters['steps']}"
        return self._name + suffix

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
            link_contrast(self._viewer.layers, like, layer)
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
    """Return the contrast limits of a layer."""
    low, high = layer.contrast_limits
    assert low is not None
    assert high is not None
    return low, high
