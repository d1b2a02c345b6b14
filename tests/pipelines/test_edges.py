"""Edges that stay, move and vanish are told apart, by known amounts."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_meduet.pipelines.style_swap.edges import compare_edges, gradient, gradient_correlation

SPACING_MM = 1.5
EVERYWHERE = np.ones((48, 48, 48), bool)


def ball(centre_mm: float = 0.0, contrast: float = 0.4) -> np.ndarray:
    """A soft ball, displaced along the first axis."""
    x, y, z = np.meshgrid(*(np.arange(48) - 23.5,) * 3, indexing="ij")
    radius = np.sqrt((x - centre_mm / SPACING_MM) ** 2 + y**2 + z**2)
    return (0.3 + contrast / (1 + np.exp(radius - 14))).astype(np.float32)


def compared(after: np.ndarray):
    return compare_edges(gradient(ball(), SPACING_MM), gradient(after, SPACING_MM), EVERYWHERE, SPACING_MM)


def test_an_unchanged_volume_has_not_moved():
    result = compared(ball())
    assert (result.displacement_mm, result.lost_fraction) == (0.0, 0.0)
    before = gradient(ball(), SPACING_MM)
    assert gradient_correlation(before, before, EVERYWHERE) == 1.0


@pytest.mark.parametrize("shift_mm", [0.4, 0.8, 1.5])
def test_a_displacement_is_measured(shift_mm):
    result = compared(ball(shift_mm))
    # Along its normal a point of the ball moves by the shift times a cosine, of which 5 % exceed 0.95.
    assert result.displacement_mm == pytest.approx(0.95 * shift_mm, abs=0.03)
    assert result.lost_fraction < 0.01


def test_a_change_of_contrast_is_no_movement():
    result = compared(ball(contrast=0.2))
    assert result.displacement_mm < 0.01
    assert result.lost_fraction == 0.0


def test_an_inverted_contrast_is_no_movement():
    assert compared(1 - ball()).displacement_mm < 0.01


def test_an_erased_organ_is_lost():
    assert compared(ball(contrast=0.02)).lost_fraction > 0.95


def test_noise_barely_moves_edges():
    noise = np.random.default_rng(0).normal(0, 0.01, EVERYWHERE.shape)  # 25 HU in a profile of 2500
    result = compared(ball() + noise)
    assert result.displacement_mm < 0.2
    assert result.lost_fraction < 0.02


def test_correlation_falls_with_blur():
    before = gradient(ball(), SPACING_MM)
    after = [gradient(gaussian_filter(ball(), sigma), SPACING_MM) for sigma in (0.5, 2, 4)]
    values = [gradient_correlation(before, blurred, EVERYWHERE) for blurred in after]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.99 > values[-1]


def test_a_flat_volume_has_no_edges_to_lose():
    flat = gradient(np.full((24, 24, 24), 0.5), SPACING_MM)
    result = compare_edges(flat, flat, np.ones((24, 24, 24), bool), SPACING_MM)
    assert (result.displacement_mm, result.lost_fraction) == (0.0, 0.0)
