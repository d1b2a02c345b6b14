"""The segmentation dock: structures and their volumes, disabled reasons, errors."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import PLUGIN, a_scan
from fakes import FakeSegmentation
from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication
from test_layers import oblique
from test_swap_widget import press, run

from napari_meduet.errors import InputError
from napari_meduet.gui.common.dock import NARROWEST
from napari_meduet.gui.common.label_counts import label_centre
from napari_meduet.gui.common.model_box import ModelBox
from napari_meduet.gui.io.writer import write_nifti
from napari_meduet.gui.layers import image_layer, is_segmented, scan_of
from napari_meduet.gui.segmentation.structure_table import NAME, VOLUME
from napari_meduet.gui.segmentation.widget import TEACH, SegmentationWidget
from napari_meduet.models.card import MaskClass, SegmenterCard
from napari_meduet.pipelines.segmentation import session as segmentation
from napari_meduet.volumes.files import read_volume

NAMES = ("background", "bright", "dark")
SEGMENTER = SegmenterCard(
    config={},
    modalities=("CT",),
    classes=tuple(MaskClass(label=label, name=name) for label, name in enumerate(NAMES)),
)
RESULT = "B ▸ structures"


@pytest.fixture
def pipeline(monkeypatch) -> FakeSegmentation:
    """A fast segmentation that a test can block and that counts its calls."""
    fake = FakeSegmentation()
    monkeypatch.setattr(segmentation, "segment", fake.segment)
    return fake


@pytest.fixture
def card(monkeypatch) -> dict:
    """Fields that replace those of the embedded model's card."""
    changes, read = {"segmenter": SEGMENTER}, ModelBox.card
    monkeypatch.setattr(ModelBox, "card", lambda box: read(box).model_copy(update=changes))
    return changes


@pytest.fixture
def widget(make_napari_viewer, pipeline, card, qtbot) -> SegmentationWidget:
    """The dock in a viewer with two scans, `A` below an oblique `B`."""
    viewer = make_napari_viewer(show=False)
    for scan, name in ((a_scan(0), "A"), (replace(a_scan(1), affine=oblique()), "B")):
        data, state, _ = image_layer(scan, name)
        viewer.add_image(data, **state)
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, "MeDUET segmentation")
    widget.viewer = viewer
    yield widget
    pipeline.gate.set()
    qtbot.waitUntil(lambda: not widget.is_busy and not widget.structures.counter.is_counting, timeout=10_000)


def names(widget) -> list[str]:
    return [layer.name for layer in widget.viewer.layers]


def cell(widget, row: int, column: int) -> str:
    return widget.structures.table.rows.item(row, column).text()


def counted(widget, qtbot):
    qtbot.waitUntil(lambda: not widget.structures.counter.is_counting, timeout=5_000)


def test_a_run_shows_structures_with_names_volumes_and_provenance(widget, qtbot, tmp_path):
    layers, scan = widget.viewer.layers, scan_of(widget.viewer.layers["B"])
    mine = widget.viewer.add_labels(np.full(layers["B"].data.shape, 7, np.uint8), name=RESULT)
    assert "bright, dark" in widget.knows.text()
    run(qtbot, widget)
    assert names(widget) == ["A", "B", RESULT, f"{RESULT} [1]"]
    assert np.all(mine.data == 7)
    result = layers[-1]
    assert np.array_equal(result.affine.affine_matrix, layers["B"].affine.affine_matrix)
    assert [str(unit) for unit in result.units] == ["millimeter"] * 3
    expected = np.where(scan.voxels > 40, 1, np.where(scan.voxels < 0, 2, 0))
    assert np.array_equal(np.asarray(result.data), expected.transpose(2, 1, 0))
    assert dict(zip(result.features["index"], result.features["name"], strict=True)) == dict(enumerate(NAMES))
    assert result.metadata["meduet"]["kind"] == "segmentation"

    # the table counts voxels of the oblique, anisotropic grid
    counted(widget, qtbot)
    per_voxel = abs(np.linalg.det(scan.affine[:3, :3])) / 1000
    volumes = {label: per_voxel * np.count_nonzero(expected == label) for label in (1, 2)}
    assert (cell(widget, 0, NAME), cell(widget, 0, VOLUME)) == ("bright", f"{volumes[1]:.2f}")
    qtbot.mouseClick(widget.structures.table.copy, Qt.MouseButton.LeftButton)
    assert QApplication.clipboard().text().splitlines() == [
        "label,name,volume_ml",
        f"1,bright,{volumes[1]:.3f}",
        f"2,dark,{volumes[2]:.3f}",
    ]

    # and counts again after painting and after undo
    result.fill((0, 0, 0), 9)
    counted(widget, qtbot)
    assert cell(widget, 2, NAME) == "label 9"
    result.undo()
    counted(widget, qtbot)
    assert widget.structures.table.rows.rowCount() == 2

    # the check box hides a structure, and a click goes to it
    table = widget.structures.table
    table.rows.item(0, NAME).setCheckState(Qt.CheckState.Unchecked)
    assert result.get_color(1)[3] == 0
    assert result.get_color(2)[3] == 1
    table.all.click()
    assert result.get_color(1)[3] == 1
    table.rows.cellClicked.emit(1, NAME)
    there = result.data_to_world(label_centre(result.data, 2, widget.structures.counter.counts[2].plane))
    assert np.allclose(
        widget.viewer.dims.point, there, atol=max(step for *_, step in widget.viewer.dims.range)
    )
    assert result.selected_label == 2

    # the saved file records the edited volumes, and reopens with its names
    result.fill((0, 0, 0), 2)
    painted = int(np.count_nonzero(result.data == 2))
    data, state, _ = result.as_layer_data_tuple()
    write_nifti(str(tmp_path / "labels.nii.gz"), data, state)
    record = read_volume(tmp_path / "labels.nii.gz").synthetic
    assert record["labels"] == {"1": "bright", "2": "dark"}
    assert record["volumes_ml"]["2"] == pytest.approx(painted * per_voxel)
    assert record["edited"] is True
    widget.viewer.open(tmp_path / "labels.nii.gz", plugin=PLUGIN)
    assert list(layers[-1].features["name"]) == ["background", "bright", "dark"]
    counted(widget, qtbot)
    assert cell(widget, 1, NAME) == "dark"


def test_twenty_clicks_are_one_job_and_cancel_leaves_nothing(widget, pipeline, qtbot):
    pipeline.gate.clear()
    press(qtbot, widget)
    for _ in range(20):
        qtbot.mouseClick(widget.run.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: pipeline.calls == 1, timeout=5_000)
    assert not widget.form.isEnabled()
    assert not widget.teach_page.form.isEnabled()
    press(qtbot, widget)
    assert widget.run.button.text() == "Cancelling…"
    qtbot.waitUntil(lambda: not widget.is_busy, timeout=5_000)
    assert pipeline.is_cancelled
    assert names(widget) == ["A", "B"]
    assert "nothing was changed" in widget.run.status.text()

    # layers may be removed during a job; the next job can start at once
    layers, place = widget.viewer.layers, widget.viewer.layers["B"].affine.affine_matrix
    press(qtbot, widget)
    qtbot.waitUntil(lambda: pipeline.calls == 2, timeout=5_000)
    layers.clear()
    pipeline.gate.set()
    qtbot.waitUntil(lambda: not widget.is_busy, timeout=5_000)
    assert names(widget) == [RESULT]
    assert np.array_equal(layers[0].affine.affine_matrix, place)
    assert not widget.run.button.isEnabled()
    assert "Choose the scan" in widget.run.status.text()
    layers.clear()
    assert not widget.structures.isVisibleTo(widget)


def test_what_cannot_be_done_says_why(widget, pipeline, card, qtbot):
    for error, sentence in ((InputError("the scan shows no body."), "no body"), (MemoryError(), "memory")):
        pipeline.raises = error
        run(qtbot, widget)
        assert sentence in widget.notice.sentence.text()
        assert names(widget) == ["A", "B"]
    card["segmenter"] = SEGMENTER.model_copy(update={"modalities": ("MR",)})
    widget.model.changed.emit()
    assert "'B' is CT" in widget.run.status.text()
    assert not widget.run.button.isEnabled()
    card["segmenter"] = None
    widget.model.changed.emit()
    assert "no segmenter" in widget.run.status.text()
    assert not widget.knows.isVisibleTo(widget)

    # a hidden scan is shown under its structures, and other structures are hidden
    card["segmenter"], pipeline.raises = SEGMENTER, None
    widget.model.changed.emit()
    layers = widget.viewer.layers
    run(qtbot, widget)
    layers["A"].visible = False
    widget.form.scan.choose(layers["A"])
    run(qtbot, widget)
    assert {layer.name for layer in layers if layer.visible} == {"A", "A ▸ structures"}
    assert all(is_segmented(layer) for layer in layers if isinstance(layer, Labels))
    counted(widget, qtbot)
    for page in (0, TEACH):
        widget.pages.setCurrentIndex(page)
        qtbot.wait(30)
        assert widget.area.widget().minimumSizeHint().width() <= NARROWEST
