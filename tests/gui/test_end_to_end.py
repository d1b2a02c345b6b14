"""The swap dock with the real pipeline: swap, change strength, save and reopen; factors and prototypes."""

import json

import numpy as np
import pytest
from conftest import PLUGIN, WIDGET
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog
from tiny import save_phantom, save_tiny_model

from napari_meduet.gui.layers import scan_of
from napari_meduet.volumes.files import read_volume


@pytest.fixture
def widget(make_napari_viewer, tmp_path):
    """The dock in a viewer with two phantoms, and a model of random weights chosen."""
    viewer = make_napari_viewer(show=False)
    for seed, name in ((3, "style"), (0, "content")):
        viewer.open(str(save_phantom(tmp_path / f"{name}.nii.gz", "CT", seed=seed)), plugin=PLUGIN)
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, WIDGET)
    widget.viewer = viewer
    widget.form.model.choose(save_tiny_model(tmp_path / "tiny"))
    return widget


@pytest.fixture
def saved_as(monkeypatch):
    """Answers the next save dialog."""

    def answer(path):
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *args: (str(path), ""))

    return answer


def click(qtbot, widget, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not widget.is_busy, timeout=60_000)
    assert not widget.notice.isVisibleTo(widget), widget.notice.sentence.text()


def test_open_swap_save_reopen(widget, qtbot, tmp_path):
    layers = widget.viewer.layers
    content = layers["content"]
    before = np.asarray(content.data).copy()
    click(qtbot, widget, widget.run.button)
    result = next(layer for layer in layers if "▸" in layer.name)
    assert result.name.startswith("content ▸ style of style")
    assert not np.array_equal(np.asarray(result.data), before)
    assert np.array_equal(np.asarray(content.data), before)
    assert result.data.dtype == content.data.dtype
    assert result.metadata["meduet"]["safety"]["verdict"] in ("pass", "check", "refuse")

    # strength 0 is the scan, bit for bit
    widget.form.strength.set_value(0.0)
    qtbot.waitUntil(lambda: "(0%)" in result.name, timeout=30_000)
    qtbot.waitUntil(lambda: not widget.is_busy)
    assert np.array_equal(np.asarray(result.data), before)
    widget.form.strength.set_value(0.5)
    qtbot.waitUntil(lambda: "(50%)" in result.name, timeout=30_000)
    qtbot.waitUntil(lambda: not widget.is_busy)

    # saved by napari and opened again: the same voxels in the same place, and still synthetic
    path = tmp_path / "swapped.nii.gz"
    result.save(str(path), plugin=PLUGIN)
    (reopened,) = widget.viewer.open(str(path), plugin=PLUGIN)
    assert np.array_equal(np.asarray(reopened.data), np.asarray(result.data))
    assert np.allclose(reopened.extent.world, result.extent.world, atol=1e-3)
    recipe = json.loads((tmp_path / "swapped.json").read_text())
    assert recipe["synthetic"] is True
    assert recipe["parameters"]["strength"] == 0.5
    assert reopened.metadata["meduet"]["model"] == recipe["model"]
    assert read_volume(path).synthetic == recipe
    assert scan_of(reopened).modality == "CT"


def test_factors_and_a_prototype_that_serves_as_style(widget, qtbot, tmp_path, saved_as):
    layers = widget.viewer.layers
    layers.selection = {layers["style"]}
    saved_as(tmp_path / "factors")
    click(qtbot, widget, widget.factors.extract)
    assert (tmp_path / "factors.safetensors").is_file()
    assert "content of 24 numbers, style of 12" in widget.factors.summary.text()
    saved_as(tmp_path / "site.style")
    click(qtbot, widget, widget.factors.prototype)
    assert "CT style of 1 scan" in widget.factors.summary.text()
    widget.form.style_source.choose(tmp_path / "site.style")
    qtbot.wait(500)
    click(qtbot, widget, widget.run.button)
    assert any(layer.name.startswith("content ▸ style of site") for layer in layers)
