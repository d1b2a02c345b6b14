"""The memorisation audit finds a copy, at its place, and says nothing of strangers."""

import numpy as np
import pytest
import torch

from meduet_training.evaluation.metrics.nearest_neighbours import (
    crops_along_tokens,
    distance_ratio,
    fraction_too_near,
    nearest_distances,
)


def test_crops_begin_at_tokens():
    latent = torch.arange(2 * 8 * 4 * 12, dtype=torch.float32).view(2, 8, 4, 12)
    crops = crops_along_tokens(latent, (4, 4, 8), 4)
    assert crops.shape == (2 * 1 * 2, 2 * 4 * 4 * 8)
    assert torch.equal(crops[3], latent[:, 4:8, :, 4:12].flatten())


def test_a_copied_crop_is_found_and_distances_are_root_mean_squares():
    generator = torch.Generator().manual_seed(0)
    scans = [torch.randn(4, 12, 8, 8, generator=generator) for _ in range(2)]
    copy = scans[1][:, 4:12, :, :]
    found = nearest_distances(torch.stack([copy, copy + 0.1]), scans, 4)
    assert found == pytest.approx([0.0, 0.1], abs=1e-3)
    stranger = torch.randn(1, 4, 8, 8, 8, generator=generator)
    assert nearest_distances(stranger, scans, 4)[0] > 1.2  # two independent normal latents: about sqrt(2)


def test_copies_lower_the_ratio_and_raise_the_share():
    real = np.linspace(1.0, 2.0, 101)
    assert distance_ratio(real, real) == 1.0
    assert fraction_too_near(real, real) == pytest.approx(5 / 101)
    copies = np.full(10, 0.1)
    assert distance_ratio(copies, real) == pytest.approx(0.1 / 1.5)
    assert fraction_too_near(copies, real) == 1.0
