from types import SimpleNamespace

import numpy as np
import pytest
from conftest import a_scan
from fakes import a_report
from napari.components import ViewerModel

from napari_meduet.gui.layers import image_layer, is_scan, is_synthetic
from napari_meduet.gui.swap.results import SwapView


def a_result(scan, change, **measured):
    return SimpleNamespace(
        volume=scan.with_values(scan.values() + np.float32(change)),
        report=a_report(**measured),
        provenance={"synthetic": True, "kind": "translated"},
    )


@pytest.fixture
def viewer() -> ViewerModel:
    viewer = ViewerModel()
    data, state, _ = image_layer(a_scan(0), "CT")
    viewer.add_image(data, **state)
    return viewer


def test_a_result_is_seen_as_its_scan_is(viewer):
    content = viewer.layers["CT"]
    content.contrast_limits, content.gamma, content.colormap = (-700, 300), 0.8, "magma"
    layer = SwapView(viewer, content, "site").show(a_result(a_scan(0), 10), strength=1)
    assert layer.contrast_limits == [-700, 300]
    assert (layer.gamma, layer.colormap.name) == (0.8, "magma")
    assert is_synthetic(layer)
    assert not is_synthetic(content)


def test_the_sliders_move_to_a_result_that_would_not_be_seen(viewer):
    viewer.add_points([[-500.0, 0, 0], [500.0, 0, 0]], units="mm", axis_labels=("z", "y", "x"))
    viewer.dims.set_point(0, 400)
    view = SwapView(viewer, viewer.layers["CT"], "site")
    layer = view.show(a_result(a_scan(0), 10), strength=1)
    low, high = layer.extent.world
    assert low[0] <= viewer.dims.point[0] <= high[0]
    viewer.dims.set_point(0, low[0])
    view.show(a_result(a_scan(0), 20), strength=0.5)
    assert viewer.dims.point[0] == pytest.approx(low[0], abs=2)  # a redraw does not change the slice


def test_the_difference_is_symmetric_about_no_change_and_is_no_scan(viewer):
    view = SwapView(viewer, viewer.layers["CT"], "site")
    change = np.zeros((12, 14, 8))
    change[:6], change[6:] = -30, 20
    view.show(a_result(a_scan(0), change), strength=1)
    view.show_difference(True)
    difference = viewer.layers["difference: CT ▸ style of site"]
    assert np.array_equal(difference.data, change.T)
    assert difference.contrast_limits == [-30, 30]
    assert not is_scan(difference)
    darker, same, brighter = difference.colormap.map(np.array([0.0, 0.5, 1.0]))[:, :3]
    assert darker[2] > darker[0]
    assert not same.any()
    assert brighter[0] > brighter[2]
    view.show_difference(False)
    assert difference not in viewer.layers


def test_without_a_change_there_is_still_a_difference_to_show(viewer):
    view = SwapView(viewer, viewer.layers["CT"], "site")
    view.show(a_result(a_scan(0), 0), strength=0)
    view.show_difference(True)
    assert not viewer.layers[-1].data.any()
