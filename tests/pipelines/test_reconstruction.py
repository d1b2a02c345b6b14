"""The round trip through a model, on the scan's own grid."""

import nibabel as nib
import numpy as np
import pytest

from napari_meduet.pipelines import RoundtripRequest, read_volume, roundtrip
from napari_meduet.pipelines.common.measures import psnr
from napari_meduet.volumes.intensity import body_mask


@pytest.mark.parametrize("through", ["tokenizer", "meduet"])
def test_a_round_trip_lands_on_the_scans_grid(tiny_model, smooth_ct, tmp_path, through):
    result = roundtrip(RoundtripRequest(smooth_ct, through=through, model=tiny_model, device="cpu"))
    result.save(tmp_path / "out.nii.gz")
    before, after = nib.load(smooth_ct), nib.load(tmp_path / "out.nii.gz")
    assert after.shape == before.shape
    assert np.allclose(after.affine, before.affine)
    assert after.get_data_dtype() == before.get_data_dtype()
    assert result.provenance["parameters"]["through"] == through


def test_the_likeness_is_that_of_what_was_written(tiny_model, smooth_ct):
    result = roundtrip(RoundtripRequest(smooth_ct, model=tiny_model, device="cpu"))
    own = {likeness.where: likeness for likeness in result.likenesses}["own grid, HU"]
    before, after = read_volume(smooth_ct).values(), result.volume.values()
    clipped = (np.clip(values, -1000, 1000) for values in (before, after))
    assert own.psnr_db == pytest.approx(psnr(*clipped, 2000.0, body_mask(before, "CT")), abs=0.01)


def test_mr_is_measured_in_its_percentile_range_alone(tiny_model, mr):
    result = roundtrip(RoundtripRequest(mr, model=tiny_model, device="cpu"))
    assert [likeness.where for likeness in result.likenesses] == [
        "1.5 mm grid, profile units",
        "own grid, profile units",
    ]
    assert all(np.isfinite(likeness.psnr_db) for likeness in result.likenesses)
