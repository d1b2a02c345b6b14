"""Fixtures of the viewer tests. A napari window takes seconds to open: use one per tested behaviour."""

import npe2
import numpy as np
import pytest
from fakes import FakePipeline

from napari_meduet.gui.layers import image_layer
from napari_meduet.gui.swap.widget import SwapWidget
from napari_meduet.volumes.volume import Volume

PLUGIN, WIDGET = "napari-meduet", "MeDUET style swap"


def a_scan(seed: int, shape=(12, 14, 8)) -> Volume:
    """Return soft tissue with noise on an anisotropic grid."""
    voxels = np.random.default_rng(seed).normal(40, 30, shape).astype(np.int16)
    affine = np.diag([1.0, 1.0, 2.5, 1.0])
    return Volume(voxels=voxels, affine=affine, modality="CT", unit="HU", sha256=f"{seed:064d}")


@pytest.fixture
def pipeline(monkeypatch) -> FakePipeline:
    """A fast swap pipeline that a test can block and that counts its calls."""
    from napari_meduet.pipelines.style_swap import session as restyling

    fake = FakePipeline()
    monkeypatch.setattr(restyling, "open_swap", fake.open_swap)
    return fake


@pytest.fixture
def swap_widget(make_napari_viewer, qtbot) -> SwapWidget:
    """The dock in a viewer with two scans, `A` below `B`; its viewer is `swap_widget.viewer`."""
    viewer = make_napari_viewer(show=False)
    for seed, name in enumerate("AB"):
        data, state, _ = image_layer(a_scan(seed), name)
        viewer.add_image(data, **state)
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, WIDGET)
    widget.viewer = viewer
    yield widget
    if widget._job is not None:
        with qtbot.waitSignal(widget._job.finished, timeout=10_000):
            widget._job.cancel()


@pytest.fixture(autouse=True)
def _plugins_are_known():
    """Discover plugins as napari does at its start; a viewer without a window needs this for readers."""
    npe2.PluginManager.instance().discover()
