"""The Teach page: samples, names, a training that is stopped or cancelled, and the use of its result."""

import gc
import weakref
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from conftest import PLUGIN, a_scan
from fakes import FakeTeaching
from napari.layers import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QFileDialog
from test_layers import oblique
from test_swap_widget import PAUSE_MS

from napari_meduet.errors import InputError
from napari_meduet.gui.common.dock import NARROWEST
from napari_meduet.gui.layers import image_layer
from napari_meduet.gui.segmentation.teach.label_names import NAME
from napari_meduet.gui.segmentation.widget import TEACH, SegmentationWidget
from napari_meduet.pipelines.segmentation import finetuning as teaching
from napari_meduet.volumes.files import read_volume, write_volume


@pytest.fixture
def pipeline(monkeypatch) -> FakeTeaching:
    """A fast fine-tuning that a test can block and that counts its calls."""
    fake = FakeTeaching()
    monkeypatch.setattr(teaching, "teach", fake.teach)
    return fake


@pytest.fixture
def widget(make_napari_viewer, pipeline, qtbot) -> SegmentationWidget:
    """The dock on the page Teach, in a viewer with three scans; the uppermost, `C`, is oblique."""
    viewer = make_napari_viewer(show=False)
    for scan, name in ((a_scan(0), "A"), (a_scan(1), "B"), (replace(a_scan(2), affine=oblique()), "C")):
        data, state, _ = image_layer(scan, name)
        viewer.add_image(data, **state)
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, "MeDUET segmentation")
    widget.pages.setCurrentIndex(TEACH)
    widget.viewer = viewer
    yield widget
    pipeline.gate.set()
    qtbot.waitUntil(lambda: not widget.is_busy, timeout=10_000)
    rest(widget, qtbot)


def names(widget) -> list[str]:
    return [layer.name for layer in widget.viewer.layers]


def rest(widget, qtbot):
    """Wait until all labels are counted."""
    rows = widget.teach_page.form.samples.rows
    qtbot.waitUntil(lambda: not any(row.counter.is_counting for row in rows), timeout=5_000)
    qtbot.waitUntil(lambda: not widget.structures.counter.is_counting, timeout=5_000)


def click(widget, qtbot, button):
    """Press a button once, after a pause so that it is not part of a double click."""
    qtbot.wait(PAUSE_MS)
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def paint(widget, qtbot, label: int):
    """Paint one stroke in the selected layer."""
    layer = widget.viewer.layers.selection.active
    layer.brush_size = 3
    layer.paint((4, 5, label), label)
    rest(widget, qtbot)


def finish(widget, qtbot):
    qtbot.waitUntil(lambda: not widget.is_busy, timeout=10_000)


def test_two_painted_scans_teach_and_the_others_get_labels(widget, pipeline, qtbot, tmp_path, monkeypatch):
    teach, layers = widget.teach_page, widget.viewer.layers
    form, status = teach.form, teach.train.status
    assert "'C' has no labels" in status.text()
    assert not teach.train.button.isEnabled()
    click(widget, qtbot, form.samples.paint)
    painted = layers["labels of C"]
    assert layers.selection.active is painted
    assert painted.mode == "paint"
    assert np.array_equal(painted.affine.affine_matrix, layers["C"].affine.affine_matrix)
    rest(widget, qtbot)
    assert "Nothing is painted in 'labels of C'" in status.text()
    paint(widget, qtbot, 1)
    click(widget, qtbot, form.samples.paint)  # a second sample, of the next scan
    assert [(scan.name, labels.name) for scan, labels in form.samples.pairs()] == [
        ("C", "labels of C"),
        ("B", "labels of B"),
    ]
    paint(widget, qtbot, 1)
    paint(widget, qtbot, 4)
    assert form.names.names() == {1: "structure 1", 4: "structure 4"}
    form.names.rows.item(0, NAME).setText("heart")
    assert list(painted.features["name"]) == ["heart", "structure 4"]
    form.names.rows.item(1, NAME).setText("heart")
    assert "'heart'" in status.text()
    form.names.rows.item(1, NAME).setText("liver")
    assert teach.train.button.isEnabled()
    assert not teach.apply_panel.apply.button.isEnabled()

    # painting during the training does not change its samples; the curve is shown until Stop and keep
    pipeline.gate.clear()
    for _ in range(20):
        qtbot.mouseClick(teach.train.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(teach.curve.points) > 3, timeout=5_000)
    assert pipeline.calls == 1
    assert not widget.run.button.isEnabled()
    painted.fill((0, 0, 0), 3)
    qtbot.waitUntil(lambda: teach.stop.isVisibleTo(widget), timeout=5_000)
    assert "Dice" in teach.summary.text()
    assert not teach.curve.grab().toImage().isNull()
    qtbot.mouseClick(teach.stop, Qt.MouseButton.LeftButton)
    finish(widget, qtbot)
    assert pipeline.was_stopped
    assert "Trained" in status.text()
    assert not teach.stop.isVisibleTo(widget)
    request = pipeline.finetune_request
    assert dict(request.names) == {1: "heart", 4: "liver"}
    assert request.background is None
    (scan, labels), (_, others) = request.examples
    assert np.allclose(scan.affine, oblique())
    assert scan.voxels.shape == labels.shape
    assert labels[0, 0, 0] == 0
    assert labels[1, 5, 4] == 1
    assert set(np.unique(others)) == {0, 1, 4}
    assert np.array_equal(labels, pipeline.painted[0])

    # apply to the other open scans: each gets its own layer, and an error does not stop the others
    bright = replace(a_scan(4), voxels=np.full((12, 14, 8), 9000, np.int16))
    for scan, name in ((bright, "bright"), (replace(a_scan(5), modality="MR", unit="arbitrary"), "MR")):
        data, state, _ = image_layer(scan, name)
        layers.insert(0, Image(data, **state))
    before = {layer.name: np.array(layer.data) for layer in layers}
    click(widget, qtbot, teach.apply_panel.apply.button)
    finish(widget, qtbot)
    assert names(widget)[len(before) :] == ["A ▸ fine-tuned"]
    assert "1 of 2 scans have labels now" in teach.apply_panel.apply.status.text()
    assert "No labels for bright: This scan is much too bright." in widget.notice.sentence.text()
    assert all(np.array_equal(layers[name].data, was) for name, was in before.items())
    teach.apply_panel.scans.choose(layers["C"])
    click(widget, qtbot, teach.apply_panel.apply.button)
    finish(widget, qtbot)
    assert np.array_equal(layers["C ▸ fine-tuned"].affine.affine_matrix, layers["C"].affine.affine_matrix)

    # apply to a folder with damaged and unsuitable files
    scans, target = tmp_path / "scans", tmp_path / "labels"
    scans.mkdir()
    target.mkdir()
    write_volume(scans / "good.nii.gz", a_scan(3), provenance={"synthetic": False})
    nib.save(nib.Nifti1Image(np.full((9, 9, 9), 9000, np.int16), np.eye(4)), scans / "bright.nii.gz")
    (scans / "cut.nii.gz").write_bytes(b"\x1f\x8b" + bytes(40))
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *args: str(target))
    teach.apply_panel.scans.choose(scans)
    click(widget, qtbot, teach.apply_panel.apply.button)
    finish(widget, qtbot)
    assert [path.name for path in sorted(target.glob("*.gz"))] == ["good_segmentation.nii.gz"]
    assert set(np.unique(read_volume(target / "good_segmentation.nii.gz").voxels)) == {0, 1, 2}
    assert "1 written, 2 failed" in teach.apply_panel.apply.status.text()
    assert "bright.nii.gz: This scan is much too bright. (1 more" in widget.notice.sentence.text()
    assert "cut.nii.gz" in widget.notice.traceback.toPlainText()

    # save as a model
    folder = tmp_path / "mine"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *args: (str(folder), ""))
    click(widget, qtbot, teach.apply_panel.save)
    finish(widget, qtbot)
    assert (folder / "card.json").is_file()
    assert widget.model.path() == folder


def test_strokes_cancel_faults_and_layers_that_go(widget, pipeline, qtbot):
    teach, layers = widget.teach_page, widget.viewer.layers
    form, status = teach.form, teach.train.status
    click(widget, qtbot, form.samples.paint)
    paint(widget, qtbot, 1)
    form.unpainted.choose(True)
    assert form.names.names() == {1: "structure 1", 2: "background"}
    assert "strokes of background too, with label 2" in status.text()
    form.names.rows.cellClicked.emit(1, NAME)
    assert layers["labels of C"].selected_label == 2
    paint(widget, qtbot, 2)
    pipeline.gate.clear()
    click(widget, qtbot, teach.train.button)
    qtbot.waitUntil(lambda: len(teach.curve.points) > 2, timeout=5_000)
    assert pipeline.finetune_request.background == 2
    assert dict(pipeline.finetune_request.names) == {1: "structure 1"}
    click(widget, qtbot, teach.train.button)
    assert teach.train.button.text() == "Cancelling…"
    finish(widget, qtbot)
    assert pipeline.is_cancelled
    assert "nothing was changed" in status.text()
    assert not teach.apply_panel.apply.button.isEnabled()
    request = weakref.ref(pipeline.finetune_request)
    pipeline.finetune_request = pipeline.painted = None
    qtbot.wait(50)
    gc.collect()
    assert request() is None  # the request was freed

    # the training continues when its layers are removed
    click(widget, qtbot, teach.train.button)
    qtbot.waitUntil(lambda: pipeline.calls == 2, timeout=5_000)
    layers.remove("labels of C")
    layers.remove("C")
    pipeline.gate.set()
    finish(widget, qtbot)
    assert "Choose the scan" in status.text() or "has no labels" in status.text()
    assert not teach.train.button.isEnabled()
    assert teach.apply_panel.apply.button.isEnabled()

    # errors become messages; labels of another grid, a scan listed twice and an empty list are refused
    form.unpainted.choose(False)
    other = widget.viewer.add_labels(np.ones((3, 4, 5), np.uint8), name="other grid")
    row = form.samples.rows[0]
    row.scan.choose(layers["B"])
    row.labels.choose(other)
    assert "'other grid' has another voxel grid than 'B'" in status.text()
    data, state, _ = image_layer(a_scan(1), "like B")
    row.labels.choose(
        widget.viewer.add_labels(np.ones(data.shape, np.uint8), affine=state["affine"], units="mm")
    )
    rest(widget, qtbot)
    for error, sentence in (
        (InputError("its loss is no longer finite."), "finite"),
        (MemoryError(), "memory"),
    ):
        pipeline.raises = error
        click(widget, qtbot, teach.train.button)
        finish(widget, qtbot)
        assert sentence in widget.notice.sentence.text()
    click(widget, qtbot, form.samples.add)
    form.samples.rows[1].scan.choose(layers["B"])
    assert "twice" in status.text()
    for row in list(form.samples.rows):
        qtbot.mouseClick(row.remove, Qt.MouseButton.LeftButton)
    assert "Add a sample" in status.text()
    QApplication.processEvents()
    assert widget.area.widget().minimumSizeHint().width() <= NARROWEST
