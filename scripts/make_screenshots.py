"""Take the pictures of the documentation: napari itself, the plugin's own samples, the embedded model.

    xvfb-run -a -s "-screen 0 1400x900x24" python scripts/make_screenshots.py

Writes `docs/images/*.png`. Nothing is drawn by hand: each picture is the window after pressing its buttons.
"""

import time
from pathlib import Path
from typing import Any

import napari
from PIL import Image
from qtpy.QtWidgets import QApplication

from napari_meduet.gui.demo import PLUGIN, WIDGET
from napari_meduet.gui.dock import Dock
from napari_meduet.gui.swap_widget import SwapWidget
from napari_meduet.gui.synthesis_widget import SynthesisWidget

IMAGES = Path(__file__).parents[1] / "docs" / "images"
WINDOW = (1340, 800)


def settle(seconds: float = 0.6) -> None:
    """Let Qt draw."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)


def finish(widget: Dock) -> None:
    """Wait for the job, and for what it leaves to be drawn."""
    while widget.is_busy:
        settle(0.1)
    settle()


def take(viewer: napari.Viewer, name: str) -> None:
    """Write the whole window, in 256 colours: a third of the size, and no eye sees it."""
    settle()
    picture = Image.fromarray(viewer.window.screenshot(canvas_only=False, flash=False)).convert("RGB")
    picture.quantize(256, method=Image.Quantize.MAXCOVERAGE).save(IMAGES / f"{name}.png", optimize=True)


def open_sample(key: str, dock: str = WIDGET) -> tuple[napari.Viewer, Any]:
    """A window on a sample with a dock open."""
    viewer = napari.Viewer(title="napari-meduet")
    viewer.window.resize(*WINDOW)
    viewer.open_sample(PLUGIN, key)
    viewer.canvas.overlays.scale_bar.visible = True
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, dock)
    settle()
    viewer.reset_view()
    return viewer, widget


def side_by_side(viewer: napari.Viewer, shape: tuple[int, int], closer: float) -> None:
    """Each layer under its name in a cell of its own, in the order of the list; all zoomed together."""
    for layer in viewer.layers:
        layer.name_overlay.visible = True
        layer.name_overlay.font_size = 7
    viewer.canvas.grid.shape = shape
    viewer.canvas.grid.enabled = True
    viewer.reset_view()
    viewer.scene.camera.zoom *= closer
    settle()


def chest() -> None:
    """The CT pair: as it opens, at half strength, what changed, and all of it side by side."""
    viewer, widget = open_sample("ct")
    assert isinstance(widget, SwapWidget)
    take(viewer, "open")
    content, style = widget.form.content.value(), widget.form.style_source.value()
    widget.run.button.click()
    finish(widget)
    widget.form.strength.set_value(0.5)
    settle(0.5)
    finish(widget)
    take(viewer, "strength")
    widget.form.strength.set_value(1.0)
    settle(0.5)
    finish(widget)
    widget.comparison.difference.click()
    take(viewer, "difference")
    style.visible = True
    viewer.layers.move(viewer.layers.index(content), 0)
    viewer.layers.selection = {viewer.layers[2]}  # content, style, result, difference
    side_by_side(viewer, (2, 2), closer=2.2)
    take(viewer, "swap")
    viewer.close()


def brain() -> None:
    """The MR pair with the lesions watched: T1, the other patient's T2, and the T1 in the style of it."""
    viewer, widget = open_sample("mr")
    lesions = viewer.layers["lesions in T1"]
    widget.form.labels.choose(lesions)
    widget.run.button.click()
    finish(widget)
    widget.verdict.measured.set_open(True)
    viewer.layers.remove(lesions)
    viewer.layers["MR, T2"].visible = True
    viewer.layers.move(viewer.layers.index(viewer.layers["MR, T1"]), 0)
    side_by_side(viewer, (1, 3), closer=1.0)
    take(viewer, "brain")
    viewer.close()


def new_chests(model: Path | None = None) -> None:
    """A synthesis with weights to choose from, and one noise in two styles.

    Args:
        model: the folder of one with a generator; None: the embedded one.
    """
    viewer, widget = open_sample("ct", "MeDUET synthesis")
    assert isinstance(widget, SynthesisWidget)
    if model is not None:
        widget.form.model.choose(model)
    widget.form.seed.field.setText("2025")
    settle()
    widget.run.button.click()
    finish(widget)
    viewer.reset_view()
    widget.weights.set_open(True)
    widget.try_weights.click()
    finish(widget)
    widget.picture.cells[1.0, 2.0].click()
    widget.area.ensureWidgetVisible(widget.picture)
    take(viewer, "guidance")
    widget.weights.set_open(False)
    widget.comparison.set_open(True)
    widget.same_noise.style_source.choose(widget.form.content.value())
    widget.same_noise.button.click()
    finish(widget)
    widget.same_noise.side_by_side.click()
    viewer.reset_view()
    viewer.scene.camera.zoom *= 3
    take(viewer, "same_noise")
    viewer.close()


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    chest()
    brain()
    new_chests()
