"""Detail follows the local change of contrast."""

import torch

from napari_meduet.core.detail import followed_slope


def test_where_nothing_changes_the_factor_is_exactly_zero():
    reference = torch.rand(12, 12, 12)
    assert torch.equal(followed_slope(torch.zeros_like(reference), reference), torch.zeros_like(reference))


def test_a_change_that_inverts_contrast_inverts_detail():
    reference = torch.rand(20, 20, 20)
    inverted = 1.0 - reference
    slope = followed_slope(inverted - reference, reference)
    assert torch.allclose(slope, torch.full_like(slope, -2.0), atol=0.05)


def test_an_offset_leaves_detail_alone():
    reference = torch.rand(20, 20, 20)
    slope = followed_slope(torch.full_like(reference, 0.2), reference)
    assert slope.abs().max() < 1e-3


def test_half_the_contrast_takes_half_the_detail():
    reference = torch.rand(20, 20, 20)
    slope = followed_slope(-0.5 * reference, reference)
    assert torch.allclose(slope, torch.full_like(slope, -0.5), atol=0.02)
