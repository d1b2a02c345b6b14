from importlib.resources import files

import nibabel as nib
import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels

from napari_meduet.gui.layers import scan_of, share_grid

SAMPLES = files("napari_meduet") / "samples"


def opened(key: str):
    viewer = ViewerModel()
    viewer.open_sample("napari-meduet", key)
    return viewer.layers


def test_the_ct_sample_is_two_chests_around_one_point():
    layers = opened("ct")
    assert [scan_of(layer).modality for layer in layers] == ["CT", "CT"]
    assert not any(scan_of(layer).warnings for layer in layers)
    middles = [np.mean(layer.extent.world, axis=0) for layer in layers]
    assert np.allclose(middles, 0, atol=2)


def test_the_mr_sample_is_two_sequences_and_lesions_on_the_grid_of_one():
    layers = opened("mr")
    scans = [layer for layer in layers if not isinstance(layer, Labels)]
    assert [scan_of(layer).modality for layer in scans] == ["MR", "MR"]
    (lesions,) = (layer for layer in layers if isinstance(layer, Labels))
    assert share_grid(lesions, layers["MR, T1"])
    assert lesions.data.any()


def test_samples_are_small_and_each_is_named_in_the_notice():
    shipped = [path for path in SAMPLES.iterdir() if path.name.endswith(".nii.gz")]
    notice = (SAMPLES / "NOTICE.md").read_text()
    assert sum(len(path.read_bytes()) for path in shipped) <= 8_000_000
    for path in shipped:
        (row,) = (line for line in notice.splitlines() if line.startswith(f"| `{path.name}`"))
        assert "CC BY" in row or "Apache" in row
        assert "NC" not in row
        assert nib.load(path).get_data_dtype() == np.int16
