"""Texture: bands are measured and changed, borders are not (specification, section 8)."""

import math

import pytest
import torch
from torch.nn import functional as F

from napari_meduet.core.texture import (
    BAND_EDGES_MM,
    CHUNK,
    GAIN_BOUNDS,
    MIN_TISSUE_VOXELS,
    PEAK,
    BandEnergies,
    band_energies,
    band_gains,
    band_ratios,
    bands,
    slice_axis,
    texture_correction,
)

PIXEL_MM = 0.75
AXIS = 2
SHAPE = (64, 64, 4)
NUM_BANDS = len(BAND_EDGES_MM)
COARSE_MM = 1.5  # such pixels cannot represent the first band


def white_noise(deviation: float, seed: int) -> torch.Tensor:
    return deviation * torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def everywhere(shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.bool)


def moved(
    remainder: torch.Tensor, other: BandEnergies, strength: float = 1.0, tissue: torch.Tensor | None = None
) -> tuple[torch.Tensor, list[float]]:
    """Return the correction towards the other texture, and its gains."""
    tissue = everywhere() if tissue is None else tissue
    own = band_energies(remainder, tissue, PIXEL_MM, AXIS)
    gains = band_gains(remainder, tissue, AXIS, own, other, strength)
    return texture_correction(remainder, gains, AXIS, own), gains


def noise_of(slices: torch.Tensor) -> float:
    """Return the robust std of the difference from a 3 x 3 in-plane mean."""
    images = slices.movedim(AXIS, 0)[:, None]
    rest = images - F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return 1.4826 * float(rest.abs().median())


def test_ones_own_texture_changes_nothing_at_all():
    remainder = white_noise(12.0, seed=0)
    correction, gains = moved(remainder, band_energies(remainder, everywhere(), PIXEL_MM, AXIS))
    assert gains == [1.0] * NUM_BANDS
    assert not correction.any()


def test_strength_zero_changes_nothing_at_all():
    sharper = band_energies(white_noise(40.0, seed=1), everywhere(), PIXEL_MM, AXIS)
    correction, gains = moved(white_noise(12.0, seed=0), sharper, strength=0.0)
    assert gains == [1.0] * NUM_BANDS
    assert not correction.any()


@pytest.mark.parametrize(("start", "end"), [(10.0, 20.0), (20.0, 10.0), (8.0, 12.0), (12.0, 8.0)])
def test_noise_goes_most_of_the_way_in_both_directions(start, end):
    remainder = white_noise(start, seed=0)
    other = band_energies(white_noise(end, seed=1), everywhere(), PIXEL_MM, AXIS)
    correction, _ = moved(remainder, other)
    before, after, wanted = (
        noise_of(slices) for slices in (remainder, remainder + correction, white_noise(end, seed=1))
    )
    assert 0.6 <= (after - before) / (wanted - before) <= 1.2


def test_strength_is_a_power_of_the_ratio():
    """The geometric mean of 10 and 40 is 20."""
    remainder = white_noise(10.0, seed=0)
    other = band_energies(white_noise(40.0, seed=1), everywhere(), PIXEL_MM, AXIS)
    correction, _ = moved(remainder, other, strength=0.5)
    assert noise_of(remainder + correction) == pytest.approx(2 * noise_of(remainder), rel=0.15)


@pytest.mark.parametrize(("factor", "bound"), [(100.0, GAIN_BOUNDS[1]), (0.01, GAIN_BOUNDS[0])])
def test_gains_are_bounded(factor, bound):
    other = band_energies(white_noise(10.0 * factor, seed=1), everywhere(), PIXEL_MM, AXIS)
    _, gains = moved(white_noise(10.0, seed=0), other)
    assert gains == [bound] * NUM_BANDS


def test_an_organ_border_is_not_moved():
    """A step of 1000 HU in noise of 10: unguarded, doubling the bands would move it by hundreds."""
    remainder = white_noise(10.0, seed=0)
    remainder[32:] += 1000.0
    tissue = everywhere()
    tissue[24:40] = False
    other = band_energies(white_noise(20.0, seed=1), everywhere(), PIXEL_MM, AXIS)
    correction, gains = moved(remainder, other, tissue=tissue)
    border = slice(28, 36)
    unguarded = sum(
        (gain - 1) * part.movedim(0, AXIS)
        for gain, part in zip(gains, bands(remainder.movedim(AXIS, 0).contiguous(), PIXEL_MM), strict=True)
    )
    assert unguarded[border].abs().max() > 300.0
    assert correction[border].abs().max() < 4 * 10.0


def test_slices_are_corrected_one_by_one():
    remainder = torch.randn(16, 16, CHUNK + 5, generator=torch.Generator().manual_seed(0))
    own, gains = BandEnergies((1.0,) * NUM_BANDS, PIXEL_MM), [2.0, 0.5, 1.0, 3.0, 1.5]
    whole = texture_correction(remainder, gains, AXIS, own)
    last = texture_correction(remainder[..., -1:], gains, AXIS, own)
    torch.testing.assert_close(whole[..., -1:], last)
    turned = texture_correction(remainder.movedim(2, 0), gains, 0, own)
    torch.testing.assert_close(turned, whole.movedim(2, 0))


def passed(band: int, frequency: float) -> float:
    """Return the transfer function of a band: the difference of those of two Gaussians."""
    through = [math.exp(-2 * (math.pi * edge * frequency) ** 2) for edge in BAND_EDGES_MM]
    return (through[band - 1] if band else 1.0) - through[band]


@pytest.mark.parametrize("band", range(NUM_BANDS))
def test_a_wave_lands_in_its_band_with_its_amplitude(band):
    pixel_mm, frequency = 0.4, PEAK / BAND_EDGES_MM[band]
    x = pixel_mm * torch.arange(200.0)
    wave = torch.sin(2 * math.pi * frequency * x)[:, None, None].expand(200, 8, 1)
    middle = everywhere(wave.shape).clone()
    middle[:40] = middle[-40:] = False
    found = band_energies(wave, middle, pixel_mm, AXIS).deviations
    assert max(range(NUM_BANDS), key=found.__getitem__) == band
    # A wave's median magnitude is 1 / sqrt(2) of its amplitude.
    assert found[band] == pytest.approx(1.4826 / 2**0.5 * passed(band, frequency), rel=0.05)


def test_ratios_of_equal_grids_by_hand():
    own = BandEnergies((10.0, 5.0, 4.0, 2.0, 0.0), 0.7)
    other = BandEnergies((20.0, 5.0, 1.0, 3.0, 7.0), 0.7)
    assert band_ratios(own, other) == [2.0, 1.0, 0.25, 1.5, None]  # a band without texture has no ratio


def test_what_the_own_grid_cannot_hold_folds_into_what_it_can():
    own = BandEnergies((1.0, 2.0, 3.0, 4.0, 5.0), COARSE_MM)
    other = BandEnergies((6.0, 2.0, 3.0, 4.0, 5.0), 0.5)
    first, *held = band_ratios(own, other)
    assert first is None
    # 36 are spread by area: 1.7778, 0.6944, 0.2770, 0.1111 of 2.8603.
    assert held[0] == pytest.approx(math.sqrt(4 + 36 * 1.7778 / 2.8603) / 2, rel=1e-3)
    reached = sum((ratio * mine) ** 2 for ratio, mine in zip(held, own.deviations[1:], strict=True))
    assert reached == pytest.approx(6**2 + 2**2 + 3**2 + 4**2 + 5**2)  # energy is conserved


def test_what_the_other_grid_cannot_hold_is_unknown():
    own = BandEnergies((1.0, 1.0, 1.0, 1.0, 1.0), 0.5)
    other = BandEnergies((9.0, 2.0, 2.0, 2.0, 2.0), COARSE_MM)
    assert band_ratios(own, other) == [None, 2.0, 2.0, 2.0, 2.0]


def test_a_band_that_one_grid_cannot_hold_follows_the_finest_that_both_can():
    remainder = white_noise(10.0, seed=0)
    own = band_energies(remainder, everywhere(), PIXEL_MM, AXIS)
    coarse = BandEnergies(tuple(2 * deviation for deviation in own.deviations), COARSE_MM)
    gains = band_gains(remainder, everywhere(), AXIS, own, coarse, 1.0)
    assert gains[0] == gains[1] > 1.2


def test_too_little_tissue_tells_nothing():
    few = torch.zeros(SHAPE, dtype=torch.bool)
    few.view(-1)[: MIN_TISSUE_VOXELS - 1] = True
    remainder = white_noise(10.0, seed=0)
    nothing = band_energies(remainder, few, PIXEL_MM, AXIS)
    assert nothing.deviations == ()
    known = band_energies(remainder, everywhere(), PIXEL_MM, AXIS)
    for own, other in ((nothing, known), (known, nothing)):
        assert band_gains(remainder, few, AXIS, own, other, 1.0) == [1.0] * NUM_BANDS


def test_a_scan_without_noise_stays_without():
    other = band_energies(white_noise(10.0, seed=1), everywhere(), PIXEL_MM, AXIS)
    correction, _ = moved(torch.zeros(SHAPE), other)
    assert not correction.any()


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [((0.7, 0.7, 2.5), 2), ((5.0, 0.7, 0.7), 0), ((0.9, 3.0, 0.9), 1), ((1.0, 1.0, 1.0), 2)],
)
def test_slices_are_stacked_along_the_coarsest_axis(spacing, axis):
    assert slice_axis(torch.diag(torch.tensor([*spacing, 1.0]))) == axis


def test_of_equal_axes_the_one_nearest_to_superior_counts():
    affine = torch.eye(4)[:, [2, 0, 1, 3]]  # voxel axis 0 runs superior
    assert slice_axis(affine) == 0


def test_grids_hold_what_lies_below_their_nyquist_frequency():
    assert BandEnergies((), 0.7).holds() == [True] * NUM_BANDS
    assert BandEnergies((), COARSE_MM).holds() == [False, True, True, True, True]
