"""The extractor without weights: it sees intensity, place and fineness, and says who it is."""

import numpy as np
import pytest
import torch

from meduet_training.evaluation.metrics.pyramid_features import BINS, BLOCKS, SHA256, pyramid_features
from meduet_training.evaluation.metrics.volume_features import SLICES, slice_features, volume_extractor

CPU = torch.device("cpu")


def smooth(seed=0, side=32):
    coarse = torch.rand(1, 1, 4, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(side,) * 3, mode="trilinear")[0, 0]


def test_the_same_image_gives_the_same_numbers():
    assert torch.equal(pyramid_features(smooth()), pyramid_features(smooth()))
    assert torch.isfinite(pyramid_features(torch.zeros(16, 16, 16))).all()


def test_shares_are_those_of_intensities():
    image = torch.full((16, 16, 16), 0.01)
    image[:4] = 0.99
    shares = pyramid_features(image)[:BINS].square()
    assert shares[[0, -1]].tolist() == pytest.approx([0.75, 0.25])


def test_parts_say_where_and_the_rest_does_not():
    image = smooth()
    there, mirrored = pyramid_features(image), pyramid_features(image.flip(0))
    parts = slice(BINS, BINS + BLOCKS**3)
    assert (there[parts] - mirrored[parts]).abs().max() > 0.2
    look = [torch.cat([each[:BINS], each[BINS + BLOCKS**3 :]]) for each in (there, mirrored)]
    assert torch.allclose(*look, atol=0.04)  # changes are to the next voxel, which a mirror makes the last


def test_noise_is_seen_at_the_finest_level():
    image = smooth()
    noise = 0.02 * torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    first = BINS + BLOCKS**3  # mean changes along the axes: three numbers a level, the finest first
    change = (pyramid_features(image + noise) - pyramid_features(image))[first : first + 12]
    assert (change[:3] > 0.03).all()
    assert change[:3].mean() > 3 * change[9:].abs().mean()


def test_slices_of_all_axes_are_described():
    features = slice_features([smooth(), smooth(1)])
    assert features.shape[:3] == (2, 3, SLICES)
    assert np.isfinite(features).all()


def test_without_weights_the_pyramid_is_named():
    extractor = volume_extractor(None, CPU)
    assert (extractor.name, extractor.sha256) == ("pyramid 1", SHA256)


def test_too_small_a_volume_is_refused():
    with pytest.raises(ValueError, match="16 voxels"):
        pyramid_features(torch.zeros(15, 16, 16))
