"""MS-SSIM: equal volumes, MONAI's numbers, and volumes too small for the window."""

import pytest
import torch

from meduet_training.evaluation.metrics.structural_similarity import WEIGHTS, ms_ssim, num_scales, scales_of


def volumes(shape):
    generator = torch.Generator().manual_seed(0)
    one = torch.rand(shape, generator=generator)
    return one, (one + 0.5 * torch.rand(shape, generator=generator)) / 1.5


def test_a_volume_is_like_itself_and_unlike_another():
    one, other = (scales_of(volume) for volume in volumes((24, 24, 24)))
    assert ms_ssim(one, one) == pytest.approx(1.0, abs=1e-5)
    assert ms_ssim(one, other) == ms_ssim(other, one) < 0.99


def test_it_is_monais():
    metrics = pytest.importorskip("monai.metrics.regression")
    one, other = volumes((48, 44, 50))
    scales = num_scales(44)
    weights = torch.tensor(WEIGHTS[:scales])
    monais = metrics.MultiScaleSSIMMetric(spatial_dims=3, weights=(weights / weights.sum()).tolist())
    expected = float(monais(one[None, None], other[None, None]))
    assert ms_ssim(scales_of(one), scales_of(other)) == pytest.approx(expected, abs=1e-4)


def test_a_scale_needs_as_many_voxels_as_the_window():
    assert [num_scales(side) for side in (11, 21, 22, 96, 4096)] == [1, 1, 2, 4, 5]
    with pytest.raises(ValueError, match="11 voxels"):
        num_scales(10)
