"""The synthesis dock: runs, partial results, weights from previews, same noise, errors."""

import numpy as np
import pytest
from conftest import PLUGIN, a_scan
from fakes import FakeSynthesis
from qtpy.QtCore import Qt
from test_swap_widget import press, run

from napari_meduet.errors import InputError
from napari_meduet.gui.common.dock import NARROWEST
from napari_meduet.gui.common.model_box import ModelBox
from napari_meduet.gui.layers import image_layer, is_synthetic
from napari_meduet.gui.synthesis.controls import ANY
from napari_meduet.gui.synthesis.mask_classes import mask_of
from napari_meduet.gui.synthesis.widget import SynthesisWidget

GENERATOR = {"grid": [6, 6, 6], "spatial_content": True, "prediction": "data"}
NAME = "synthetic ▸ anatomy of B, style of A"


@pytest.fixture
def pipeline(monkeypatch) -> FakeSynthesis:
    """A fast synthesis that a test can block and that counts its calls."""
    from napari_meduet.pipelines.synthesis import pace as synthesis_pace
    from napari_meduet.pipelines.synthesis import session as synthesis

    fake = FakeSynthesis()
    monkeypatch.setattr(synthesis, "open_synthesis", fake.open_synthesis)
    monkeypatch.setattr(synthesis_pace, "measured_pace", fake.measured_pace)
    return fake


@pytest.fixture
def generator(monkeypatch) -> dict:
    """The generator on the embedded model's card; a test may change it."""
    config, read = dict(GENERATOR), ModelBox.card
    monkeypatch.setattr(ModelBox, "card", lambda box: read(box).model_copy(update={"generator": config}))
    return config


@pytest.fixture
def widget(make_napari_viewer, pipeline, generator, qtbot) -> SynthesisWidget:
    """The dock in a viewer with two scans, `A` below `B`."""
    viewer = make_napari_viewer(show=False)
    for seed, name in enumerate("AB"):
        data, state, _ = image_layer(a_scan(seed), name)
        viewer.add_image(data, **state)
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, "MeDUET synthesis")
    widget.viewer = viewer
    yield widget
    pipeline.gate.set()
    qtbot.waitUntil(lambda: not widget.is_busy and widget._measuring is None, timeout=10_000)


def names(widget) -> list[str]:
    return [layer.name for layer in widget.viewer.layers]


def test_a_run_shows_one_layer_as_noise_leaves_it_and_cancel_keeps_it(widget, pipeline, qtbot):
    layers, status = widget.viewer.layers, widget.run.status
    before = [np.asarray(layer.data).copy() for layer in layers]
    qtbot.waitUntil(lambda: widget.run.duration.text() == "about 24 s", timeout=5_000)
    pipeline.gate.clear()
    press(qtbot, widget)
    for _ in range(20):
        qtbot.mouseClick(widget.run.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: names(widget) == ["A", "B", f"{NAME} · step 3 of 24"], timeout=5_000)
    shown = layers[2]
    assert is_synthetic(shown)
    assert np.all(np.asarray(shown.data) == 3)
    assert widget.run.button.text() == "Cancel"
    press(qtbot, widget)
    assert widget.run.button.text() == "Cancelling…"
    qtbot.waitUntil(lambda: not widget.is_busy, timeout=5_000)
    assert names(widget) == ["A", "B", f"{NAME} · partial, step 3 of 24"]
    assert shown.metadata["meduet"]["parameters"]["is_partial"]
    assert "kept" in status.text()
    assert pipeline.calls == 1

    # the next job can start at once and adds new layers
    pipeline.gate.set()
    widget.form.count.setValue(2)
    run(qtbot, widget)
    assert names(widget)[3:] == [f"{NAME} · 1 of 2", f"{NAME} · 2 of 2"]
    assert np.all(np.asarray(layers[3].data) == 100)
    assert [str(unit) for unit in layers[3].units] == ["millimeter"] * 3
    assert layers[4].metadata["meduet"]["seed"] == widget.form.seed.value() + 1
    assert all(
        np.array_equal(np.asarray(layer.data), was) for layer, was in zip(layers, before, strict=False)
    )


def test_faults_leave_a_sentence_and_nothing_unfinished(widget, pipeline, qtbot):
    for error, sentence in (
        (InputError("the numbers are not finite at step 2."), "step 2"),
        (MemoryError(), "memory"),
    ):
        pipeline.raises = error
        run(qtbot, widget)
        assert sentence in widget.notice.sentence.text()
        assert names(widget) == ["A", "B"]
    pipeline.raises = None
    pipeline.gate.clear()
    press(qtbot, widget)
    qtbot.waitUntil(lambda: len(widget.viewer.layers) == 3, timeout=5_000)
    widget.viewer.layers.clear()  # sources and preview are removed during the job
    pipeline.gate.set()
    qtbot.waitUntil(lambda: not widget.is_busy, timeout=5_000)
    assert names(widget) == [NAME]
    assert not widget.notice.isVisibleTo(widget)


def test_weights_by_eye_and_two_styles_of_the_same_noise(widget, pipeline, qtbot):
    qtbot.mouseClick(widget.try_weights, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not widget.is_busy, timeout=5_000)
    widget.weights.set_open(True)
    qtbot.mouseClick(widget.picture.cells[2.0, 4.0], Qt.MouseButton.LeftButton)
    assert (widget.form.content_weight.value(), widget.form.style_weight.value()) == (2.0, 4.0)

    assert not widget.same_noise.button.isEnabled()
    run(qtbot, widget)
    widget.same_noise.style_source.choose(widget.viewer.layers["B"])
    qtbot.mouseClick(widget.same_noise.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not widget.is_busy, timeout=5_000)
    second = "synthetic ▸ same noise, style of B"
    assert names(widget) == ["A", "B", NAME, second]
    layers, grid = widget.viewer.layers, widget.viewer.canvas.grid
    assert layers[second].metadata["meduet"]["seed"] == layers[NAME].metadata["meduet"]["seed"]
    widget.same_noise.side_by_side.click()
    assert grid.enabled
    assert {layer.name for layer in layers if layer.visible} == {NAME, second}
    layers.remove(second)
    assert not grid.enabled
    assert all(layer.visible for layer in layers)


def test_the_dock_fits_and_what_cannot_be_asked_says_why(widget, generator, qtbot):
    form, status = widget.form, widget.run.status
    for section in (form.options, widget.weights, widget.comparison):
        section.set_open(True)
    qtbot.wait(50)
    assert widget.area.widget().minimumSizeHint().width() <= NARROWEST
    assert "no ControlNet" in form.mask_labels.toolTip()
    assert not form.noise.isEnabled()
    form.content.choose(ANY)
    assert not form.content_weight.isEnabled()
    assert "without a content" in form.anatomy.toolTip()
    first = form.seed.value()
    qtbot.mouseClick(form.seed.new, Qt.MouseButton.LeftButton)
    assert form.seed.value() != first
    generator["prediction"] = "noise"
    form._model_changed()
    assert form.sampler.value() == "ddim"
    assert form.steps.value() == 50
    generator.clear()
    form._model_changed()
    assert "no generator" in status.text()
    assert not form.main_controls.isEnabled()
    assert form.model.isEnabled()
    assert not widget.run.button.isEnabled()

    labels = widget.viewer.add_labels(
        np.array([[[0, 7, 7]]], np.uint8), features={"index": [7], "name": ["Lung"]}
    )
    assert mask_of(labels, labels, {0: "background", 3: "liver", 5: "lung"}).ravel().tolist() == [0, 5, 5]
    with pytest.raises(InputError, match=r"no class for label 7 \(Lung\)"):
        mask_of(labels, labels, {0: "background", 3: "liver"})
