"""Take the screenshots of the documentation with napari, the plugin's sample scans and the embedded model.

    xvfb-run -a -s "-screen 0 1400x900x24" python scripts/make_screenshots.py [--only PICTURE] [--third CT]

Writes `docs/images/*.png`. Each picture is the real window after its buttons were pressed. Pictures of the
Teach page need a third chest CT (`--third`) beside the two samples; the script paints strokes on the samples.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
from PIL import Image
from qtpy.QtWidgets import QApplication
from scipy.ndimage import binary_dilation, binary_erosion, binary_fill_holes

from napari_meduet.gui.common.dock import Dock
from napari_meduet.gui.demo import PLUGIN, WIDGET
from napari_meduet.gui.layers import image_layer
from napari_meduet.gui.segmentation.widget import TEACH, SegmentationWidget
from napari_meduet.gui.swap.widget import SwapWidget
from napari_meduet.gui.synthesis.widget import SynthesisWidget
from napari_meduet.volumes.files import read_volume

IMAGES = Path(__file__).parents[1] / "docs" / "images"
WINDOW = (1340, 800)


def settle(seconds: float = 0.6) -> None:
    """Let Qt process its events for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)


def finish(widget: Dock) -> None:
    """Wait until the job has ended and its result is drawn."""
    while widget.is_busy:
        settle(0.1)
    settle()


def take(viewer: napari.Viewer, name: str) -> None:
    """Write the whole window in 256 colours, which is a third of the size without a visible difference."""
    settle()
    picture = Image.fromarray(viewer.window.screenshot(canvas_only=False, flash=False)).convert("RGB")
    picture.quantize(256, method=Image.Quantize.MAXCOVERAGE).save(IMAGES / f"{name}.png", optimize=True)


def open_sample(key: str, dock: str = WIDGET) -> tuple[napari.Viewer, Any]:
    """Open a sample and a dock. Return the viewer and the dock's widget."""
    viewer = napari.Viewer(title="napari-meduet")
    viewer.window.resize(*WINDOW)
    viewer.open_sample(PLUGIN, key)
    viewer.canvas.overlays.scale_bar.visible = True
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, dock)
    settle()
    viewer.reset_view()
    return viewer, widget


def side_by_side(viewer: napari.Viewer, shape: tuple[int, int], closer: float) -> None:
    """Show each layer with its name in a grid cell, in the order of the list, with one zoom."""
    for layer in viewer.layers:
        layer.name_overlay.visible = True
        layer.name_overlay.font_size = 7
    viewer.canvas.grid.shape = shape
    viewer.canvas.grid.enabled = True
    viewer.reset_view()
    viewer.scene.camera.zoom *= closer
    settle()


def chest() -> None:
    """The CT pair: after opening, at half strength, the difference, and all layers side by side."""
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
    """The MR pair with labelled lesions: T1, the other patient's T2, and the T1 in the style of the T2."""
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
    """A synthesis with previews of weights, and the same noise with two styles.

    Args:
        model: Folder of a model with a generator; None uses the embedded model.
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


def structures() -> None:
    """The structures that the embedded segmenter finds in the CT sample."""
    viewer, widget = open_sample("ct", "MeDUET segmentation")
    assert isinstance(widget, SegmentationWidget)
    widget.run.button.click()
    finish(widget)
    settle(2)  # wait until the voxels are counted
    widget.structures.table.rows.setCurrentCell(1, 0)
    take(viewer, "segmentation")
    viewer.close()


def finetuning(third: Path) -> None:
    """The Teach page: bone and fat from strokes on both CT samples, and the result on a third scan."""
    viewer, widget = open_sample("ct", "MeDUET segmentation")
    assert isinstance(widget, SegmentationWidget)
    data, state, _ = image_layer(read_volume(third, modality="CT"), "CT, another patient")
    viewer.add_image(data, **state, visible=False)
    teach = widget.teach_page
    widget.pages.setCurrentIndex(TEACH)
    for name in ("CT, soft kernel", "CT, sharp kernel"):
        if name != "CT, soft kernel":
            teach.form.samples.add.click()
        teach.form.samples.rows[-1].scan.choose(viewer.layers[name])
        teach.form.samples.paint.click()
        paint_strokes(np.asarray(viewer.layers[name].data), viewer.layers.selection.active)
        settle(2)  # wait until the labels are counted
    for row, name in enumerate(("bone", "fat", "background")):
        teach.form.names.rows.item(row, 1).setText(name)
    teach.form.unpainted.choose(True)
    teach.form.steps.setValue(200)
    show_only(viewer, "CT, soft kernel", "labels of CT, soft kernel")
    viewer.layers.selection.active = viewer.layers["labels of CT, soft kernel"]
    viewer.reset_view()
    take(viewer, "teach_paint")
    teach.train.button.click()
    while widget.is_busy and (not teach.curve.points or teach.curve.points[-1].step < 100):
        settle(0.1)
    widget.area.ensureWidgetVisible(teach.summary)
    take(viewer, "teach_curve")
    finish(widget)
    teach.apply_panel.apply.button.click()
    finish(widget)
    settle(2)
    viewer.reset_view()
    widget.area.ensureWidgetVisible(widget.structures.table)
    take(viewer, "teach_result")
    viewer.close()


def paint_strokes(hu: np.ndarray, layer: Any) -> None:
    """Paint short strokes on four axial slices: 1 is bone, 2 is fat, 3 is background."""
    random = np.random.default_rng(0)
    for plane in np.linspace(0, len(hu) - 1, 6).astype(int)[1:-1]:
        values = hu[plane]
        body = binary_fill_holes(binary_erosion(values > -200, iterations=3))
        tissues = (
            (1, values > 250, 1, 8),
            (2, (values > -140) & (values < -60), 2, 8),
            (3, (values > 0) & (values < 120), 2, 6),
            (3, body & (values < -600), 5, 3),
            (3, ~binary_dilation(body, iterations=15), 5, 3),
        )
        for label, tissue, depth, count in tissues:
            inside = binary_erosion(tissue, iterations=depth)
            places = np.argwhere(inside)
            for y, x in places[random.permutation(len(places))[:count]]:
                near = np.zeros(values.shape, bool)
                near[max(y - 1, 0) : y + 2, max(x - 9, 0) : x + 10] = True  # a short stroke along x
                rows, columns = np.nonzero(near & tissue)
                layer.data_setitem((np.full(len(rows), plane), rows, columns), label)


def show_only(viewer: napari.Viewer, *names: str) -> None:
    """Show only these layers, and go to the slice with most labels in the second one."""
    for layer in viewer.layers:
        layer.visible = layer.name in names
    data = np.asarray(viewer.layers[names[1]].data)
    fullest = int(np.count_nonzero(data, axis=(1, 2)).argmax())
    point = viewer.layers[names[1]].data_to_world((fullest, 0, 0))
    viewer.dims.set_point(0, point[0])


def main() -> None:
    pictures: dict[str, Callable[[], None]] = {
        "chest": chest,
        "brain": brain,
        "new_chests": new_chests,
        "structures": structures,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=[*pictures, "finetuning"], help="Take one group of pictures.")
    parser.add_argument("--third", type=Path, help="Third chest CT; without it the Teach page is left out.")
    options = parser.parse_args()
    if options.third is not None:
        pictures["finetuning"] = lambda: finetuning(options.third)
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        if options.only in (None, name):
            picture()


if __name__ == "__main__":
    main()
