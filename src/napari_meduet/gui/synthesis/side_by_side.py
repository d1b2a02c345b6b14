"""Show two layers side by side in napari's grid, and restore the view afterwards."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer


class SideBySide:
    """Shows two layers, each in a grid cell with its name, and hides all others."""

    def __init__(self, viewer: "Viewer") -> None:
        self._viewer = viewer
        self._hidden: list[Layer] = []
        self._pair: tuple[Layer, ...] = ()

    def show(self, first: "Layer", second: "Layer") -> None:
        """Show the first layer on the left and the second on the right."""
        self.end()
        layers, grid = self._viewer.layers, self._viewer.canvas.grid
        self._pair = first, second
        self._hidden = [layer for layer in layers if layer.visible and layer not in self._pair]
        for layer in self._hidden:
            layer.visible = False
        layers.move(layers.index(first), len(layers))
        layers.move(layers.index(second), layers.index(first))  # the uppermost is on the left
        for layer in self._pair:
            layer.visible = layer.name_overlay.visible = True
        grid.shape, grid.stride, grid.enabled = (1, 2), 1, True

    def end(self) -> None:
        """Restore the view from before `show`."""
        if not self._pair:
            return
        for layer in self._pair:
            layer.name_overlay.visible = False
        for layer in self._hidden:
            layer.visible = True
        self._viewer.canvas.grid.enabled = False
        self._hidden, self._pair = [], ()
