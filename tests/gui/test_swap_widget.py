import gc
import threading
import weakref

import numpy as np
from napari.utils import progress
from qtpy.QtCore import Qt

from napari_meduet.errors import InputError
from napari_meduet.gui.common.background import Job
from napari_meduet.gui.common.dock import NARROWEST
from napari_meduet.gui.common.run_bar import SETTLE_S

PAUSE_MS = round(1000 * SETTLE_S) + 50


def press(qtbot, widget):
    """Press Run or Cancel once, after a pause so that it is not part of a double click."""
    qtbot.wait(PAUSE_MS)
    qtbot.mouseClick(widget.run.button, Qt.MouseButton.LeftButton)


def run(qtbot, widget):
    """Press Run and wait for the end."""
    press(qtbot, widget)
    qtbot.waitUntil(lambda: not widget.is_busy, timeout=10_000)


def test_a_run_adds_a_layer_on_the_scan_s_grid_with_its_whole_recipe(swap_widget, pipeline, qtbot):
    layers = swap_widget.viewer.layers
    assert swap_widget.form.content.value() is layers["B"]  # the uppermost
    assert swap_widget.form.style_source.value() is layers["A"]
    run(qtbot, swap_widget)
    result = layers["B ▸ style of A"]
    assert np.array_equal(np.asarray(result.data), np.asarray(layers["B"].data) + 100)
    assert np.array_equal(result.affine.affine_matrix, layers["B"].affine.affine_matrix)
    assert result.units == layers["B"].units
    assert result.metadata["meduet"]["strength"] == 1.0
    assert result.metadata["meduet"]["synthetic"] is True
    assert "PASS" in swap_widget.verdict.heading.text()
    assert "0.30 mm" in swap_widget.verdict.reasons.text()

    # a second run of the same never replaces the first
    run(qtbot, swap_widget)
    assert [layer.name for layer in layers] == ["A", "B", "B ▸ style of A", "B ▸ style of A [1]"]
    assert swap_widget.form.content.value() is layers["B"]

    # contrast limits and gamma are linked both ways until one of the layers is removed
    result.contrast_limits = (-50, 90)
    assert layers["B"].contrast_limits == [-50, 90]
    layers["B"].gamma = 0.7
    assert result.gamma == 0.7
    layers.remove(result)
    layers["B"].contrast_limits = (0, 80)
    assert result.contrast_limits == [-50, 90]
    assert layers["B ▸ style of A [1]"].contrast_limits == [0, 80]


def test_twenty_clicks_are_one_job(swap_widget, pipeline, qtbot):
    qtbot.wait(PAUSE_MS)
    for _ in range(20):
        qtbot.mouseClick(swap_widget.run.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not swap_widget.is_busy, timeout=10_000)
    assert pipeline.calls == 1
    assert len(swap_widget.viewer.layers) == 3


def test_run_becomes_cancel_and_nothing_stays(swap_widget, pipeline, qtbot):
    pipeline.gate.clear()
    assert swap_widget.run.button.text() == "Run style swap"
    press(qtbot, swap_widget)
    assert swap_widget.run.button.text() == "Cancel"
    assert not swap_widget.form.isEnabled()
    qtbot.waitUntil(lambda: pipeline.calls == 1)
    assert pipeline.request() is not None
    press(qtbot, swap_widget)
    assert swap_widget.run.button.text() == "Cancelling…"
    assert not swap_widget.run.button.isEnabled()
    qtbot.waitUntil(lambda: not swap_widget.is_busy, timeout=5_000)
    assert pipeline.is_cancelled
    assert swap_widget.run.button.text() == "Run style swap"
    assert swap_widget.run.status.text() == "Cancelled; nothing was changed."
    assert len(swap_widget.viewer.layers) == 2
    qtbot.wait(50)
    gc.collect()
    assert pipeline.request() is None  # the request was freed

    # the Cancel button in napari's activity dock does the same
    press(qtbot, swap_widget)
    qtbot.waitUntil(lambda: pipeline.calls == 2)
    (bar,) = progress._all_instances
    bar.cancel()
    qtbot.waitUntil(lambda: not swap_widget.is_busy, timeout=5_000)
    assert swap_widget.run.status.text() == "Cancelled; nothing was changed."
    assert not progress._all_instances

    # the next job can start at once
    pipeline.gate.set()
    run(qtbot, swap_widget)
    assert len(swap_widget.viewer.layers) == 3


def test_layers_may_go_or_change_their_names_while_it_runs(swap_widget, pipeline, qtbot):
    layers = swap_widget.viewer.layers
    content, before = layers["B"], np.asarray(layers["B"].data).copy()
    pipeline.gate.clear()
    press(qtbot, swap_widget)
    qtbot.waitUntil(lambda: pipeline.calls == 1)
    layers["A"].name = "other name"
    layers.remove("other name")
    layers.remove(content)
    pipeline.gate.set()
    qtbot.waitUntil(lambda: not swap_widget.is_busy, timeout=10_000)
    assert [layer.name for layer in layers] == ["B ▸ style of A"]
    assert np.array_equal(np.asarray(layers[0].data), before + 100)
    assert not swap_widget.notice.isVisibleTo(swap_widget)
    assert "Choose the scan" in swap_widget.run.status.text()
    assert not swap_widget.run.button.isEnabled()


def test_strength_moved_after_a_run_redraws_its_own_layer(swap_widget, pipeline, qtbot):
    layers = swap_widget.viewer.layers
    run(qtbot, swap_widget)
    swap_widget.comparison.difference.click()
    swap_widget.form.strength.set_value(0.5)
    qtbot.waitUntil(lambda: "B ▸ style of A (50%)" in layers, timeout=5_000)
    result = layers["B ▸ style of A (50%)"]
    qtbot.waitUntil(lambda: not swap_widget.is_busy)
    assert np.array_equal(np.asarray(result.data), np.asarray(layers["B"].data) + 50)
    assert result.metadata["meduet"]["strength"] == 0.5
    assert pipeline.calls == 1
    difference = layers["difference: B ▸ style of A"]
    assert np.all(np.asarray(difference.data) == 50)
    low, high = difference.contrast_limits
    assert low == -high
    swap_widget.comparison.difference.click()
    assert len(layers) == 3

    # while "Hold: before" is pressed, the result is hidden
    qtbot.mousePress(swap_widget.comparison.before, Qt.MouseButton.LeftButton)
    assert not result.visible
    qtbot.mouseRelease(swap_widget.comparison.before, Qt.MouseButton.LeftButton)
    assert result.visible

    # after a change of the form, the slider has no effect until the next run
    swap_widget.form.mode.choose("adain")
    swap_widget.form.strength.set_value(0.2)
    qtbot.wait(400)
    assert np.array_equal(np.asarray(result.data), np.asarray(layers["B"].data) + 50)


def test_an_error_is_one_sentence_and_the_widget_stays_usable(swap_widget, pipeline, qtbot):
    notice = swap_widget.notice
    for error, sentence, has_traceback in (
        (InputError("scan.nii: the spacing is zero."), "scan.nii: the spacing is zero.", False),
        (RuntimeError("wires crossed"), "unexpected error (RuntimeError)", True),
        (MemoryError(), "ran out of memory", True),
        (SystemExit(3), "unexpected error (SystemExit)", True),
    ):
        pipeline.raises = error
        run(qtbot, swap_widget)
        assert notice.isVisibleTo(swap_widget)
        assert sentence in notice.sentence.text()
        assert notice.details.isVisibleTo(notice) == has_traceback
        assert ("Traceback" in notice.traceback.toPlainText()) == has_traceback
    pipeline.raises = None
    run(qtbot, swap_widget)
    assert not notice.isVisibleTo(swap_widget)
    assert len(swap_widget.viewer.layers) == 3


def test_a_refused_result_says_so_in_words_and_in_its_name(swap_widget, pipeline, qtbot):
    pipeline.measured = {"edge_displacement_mm": 4.0, "is_extrapolated": True}
    run(qtbot, swap_widget)
    assert "B ▸ style of A · refused" in swap_widget.viewer.layers
    assert "REFUSE" in swap_widget.verdict.heading.text()
    assert "4.00 mm" in swap_widget.verdict.reasons.text()
    assert "extrapolated" in swap_widget.verdict.reasons.text()


def test_the_dock_fits_and_says_why_what_cannot_be_pressed(swap_widget, pipeline, qtbot, tmp_path):
    form, button, status = swap_widget.form, swap_widget.run.button, swap_widget.run.status
    swap_widget.setParent(None)
    swap_widget.show()
    swap_widget.resize(340, 700)
    form.options.title.click()
    swap_widget.area.verticalScrollBar().setVisible(True)
    qtbot.wait(50)
    assert swap_widget.area.widget().width() <= swap_widget.area.viewport().width()
    assert swap_widget.area.widget().minimumSizeHint().width() <= NARROWEST

    assert button.isEnabled()
    form.style_source.choose(form.content.value())
    assert not button.isEnabled()
    assert "same layer" in status.text()
    assert button.toolTip() == status.text()
    form.style_source.choose(tmp_path / "site.style")
    assert button.isEnabled()
    form.mode.choose("token")
    assert "same grid" in status.text()
    form.mode.choose("shift")
    assert status.text() == ""
    form.decode.choose("full")
    assert not form.texture.isEnabled()
    assert "full decode" in form.texture.toolTip()
    labels = swap_widget.viewer.add_labels(np.zeros((3, 3, 3), np.uint8), name="lesions")
    form.labels.choose(labels)
    assert "'lesions' has another voxel grid" in status.text()
    swap_widget.viewer.layers.clear()
    assert "Choose the scan" in status.text()


def test_the_result_lands_in_the_viewer_that_asked(swap_widget, pipeline, qtbot, make_napari_viewer):
    pipeline.gate.clear()
    press(qtbot, swap_widget)
    other = make_napari_viewer(show=False)
    other.window.activate()
    pipeline.gate.set()
    qtbot.waitUntil(lambda: not swap_widget.is_busy, timeout=10_000)
    assert "B ▸ style of A" in swap_widget.viewer.layers
    assert len(other.layers) == 0


def test_many_runs_leave_no_threads_no_handlers_and_no_jobs(swap_widget, pipeline, qtbot):
    layers = swap_widget.viewer.layers

    def a_run():
        swap_widget._run()
        qtbot.waitUntil(lambda: not swap_widget.is_busy, timeout=10_000)
        layers.remove("B ▸ style of A")

    pipeline.steps = 1
    a_run()
    qtbot.wait(50)

    def left_behind() -> tuple[int, int, int, int]:
        gc.collect()
        handlers = len(layers.events.removed.callbacks) + len(layers["B"].events.contrast_limits.callbacks)
        return threading.active_count(), handlers, len(swap_widget.findChildren(Job)), len(layers)

    before = left_behind()
    for _ in range(12):
        a_run()
    qtbot.wait(50)
    assert left_behind() == before


def test_a_closed_dock_leaves_nothing_behind(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=False)
    handlers = len(viewer.layers.events.inserted.callbacks)
    dock, widget = viewer.window.add_plugin_dock_widget("napari-meduet", "MeDUET style swap")
    assert len(viewer.layers.events.inserted.callbacks) > handlers
    gone = weakref.ref(widget)
    viewer.window.remove_dock_widget(dock)
    del widget, dock
    qtbot.wait(50)
    gc.collect()
    qtbot.wait(50)
    assert gone() is None
    viewer.add_points([[0.0, 0, 0]])
    assert len(viewer.layers.events.inserted.callbacks) == handlers
