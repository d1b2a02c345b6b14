import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_meduet.core.factors import StyleStatistics, style_statistics
from napari_meduet.core.swapping import (
    adain_style,
    blend,
    prototype_style,
    shift_style,
    token_style,
)

MODES = {"shift": shift_style, "prototype": prototype_style, "adain": adain_style}
SEEDS = st.integers(0, 2**16)
STRENGTHS = st.floats(-0.5, 1.5)
EVERY_MODE = pytest.mark.parametrize("mode", MODES)


def two_scans(seed: int) -> tuple[torch.Tensor, StyleStatistics, StyleStatistics]:
    """Return style tokens of three windows of a scan, its statistics, and those of another scan."""
    generator = torch.Generator().manual_seed(seed)
    scan = torch.randn(3, 20, 6, generator=generator) * 3 + 1
    other = torch.randn(50, 6, generator=generator) * 0.2 - 4
    return scan, style_statistics(scan.flatten(0, 1)), style_statistics(other)


def statistics(mean: float, std: float) -> StyleStatistics:
    return StyleStatistics(mean=torch.tensor([float(mean)]), std=torch.tensor([float(std)]))


def test_each_mode_by_hand():
    style, own, other = torch.tensor([[[1.0], [5.0]]]), statistics(3, 2), statistics(10, 6)
    assert shift_style(style, own, other).flatten().tolist() == [8, 12]
    assert prototype_style(style, own, other).flatten().tolist() == [10, 10]
    assert torch.allclose(adain_style(style, own, other).flatten(), torch.tensor([4.0, 16.0]), atol=1e-4)
    assert token_style(style, style + 7).flatten().tolist() == [8, 12]


def test_half_the_strength_goes_half_the_way():
    style, own, other = torch.tensor([[[1.0], [5.0]]]), statistics(3, 2), statistics(10, 6)
    assert shift_style(style, own, other, 0.5).flatten().tolist() == [4.5, 8.5]
    assert prototype_style(style, own, other, 0.5).flatten().tolist() == [6.5, 6.5]
    # Mean 6.5 and std 4, twice the scan's own.
    assert torch.allclose(adain_style(style, own, other, 0.5).flatten(), torch.tensor([2.5, 10.5]), atol=1e-4)
    assert token_style(style, style + 7, 0.5).flatten().tolist() == [4.5, 8.5]


@EVERY_MODE
@given(SEEDS)
def test_strength_zero_is_the_scans_own_rendering_to_the_last_bit(mode, seed):
    style, own, other = two_scans(seed)
    restyle = MODES[mode]
    assert torch.equal(restyle(style, own, other, 0.0), restyle(style, own, own))


@EVERY_MODE
@given(SEEDS, STRENGTHS)
def test_ones_own_style_is_the_scans_own_rendering_to_the_last_bit(mode, seed, strength):
    style, own, _ = two_scans(seed)
    twin = StyleStatistics(mean=own.mean.clone(), std=own.std.clone())
    restyle = MODES[mode]
    assert torch.equal(restyle(style, own, twin, strength), restyle(style, own, own, 1.0))


@given(SEEDS)
def test_a_shift_by_nothing_leaves_the_tokens_to_the_last_bit(seed):
    style, own, other = two_scans(seed)
    assert torch.equal(shift_style(style, own, own), style)
    assert torch.equal(shift_style(style, own, other, 0.0), style)


@EVERY_MODE
@given(SEEDS)
def test_at_full_strength_the_mean_style_is_the_others(mode, seed):
    style, own, other = two_scans(seed)
    moved = style_statistics(MODES[mode](style, own, other).flatten(0, 1))
    assert torch.allclose(moved.mean, other.mean, atol=1e-4)


@given(SEEDS)
def test_what_varies_inside_the_scan_survives_a_shift_and_takes_the_others_spread_in_adain(seed):
    style, own, other = two_scans(seed)
    shifted = style_statistics(shift_style(style, own, other).flatten(0, 1))
    normalised = style_statistics(adain_style(style, own, other).flatten(0, 1))
    assert torch.allclose(shifted.std, own.std, atol=1e-4)
    assert torch.allclose(normalised.std, other.std, atol=1e-4)


@given(SEEDS, STRENGTHS)
def test_token_mode_keeps_both_ends_to_the_last_bit(seed, strength):
    own, other = torch.randn(2, 2, 8, 4, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(token_style(own, other, 0.0), own)
    assert torch.equal(token_style(own, other, 1.0), other)
    assert torch.equal(token_style(own, own.clone(), strength), own)


@given(SEEDS, STRENGTHS)
def test_blending_is_the_papers_mixture(seed, strength):
    own, other = torch.randn(2, 192, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(blend(own, other, strength), (1 - strength) * own + strength * other, atol=1e-5)


@pytest.mark.parametrize("strength", [-0.51, 1.51, float("nan")])
@EVERY_MODE
def test_a_strength_beyond_reason_is_refused(mode, strength):
    style, own, other = two_scans(0)
    with pytest.raises(ValueError, match=r"from -0\.5 to 1\.5"):
        MODES[mode](style, own, other, strength)


def test_extrapolation_never_turns_the_spread_round():
    style, own, other = torch.tensor([[[1.0], [5.0]]]), statistics(3, 2), statistics(3, 0)
    assert torch.allclose(adain_style(style, own, other, 1.5), torch.tensor(3.0), atol=1e-4)


def test_a_style_channel_without_spread_stays_finite_in_adain():
    style, own, other = torch.full((1, 2, 1), 3.0), statistics(3, 0), statistics(10, 6)
    assert adain_style(style, own, other).flatten().tolist() == [10, 10]


def test_each_volume_of_a_batch_may_have_statistics_of_its_own():
    style = torch.zeros(2, 3, 1)
    own = StyleStatistics(mean=torch.zeros(2, 1), std=torch.ones(2, 1))
    other = StyleStatistics(mean=torch.tensor([[1.0], [2.0]]), std=torch.ones(2, 1))
    assert shift_style(style, own, other)[:, 0, 0].tolist() == [1, 2]


def test_grids_that_differ_cannot_exchange_tokens():
    with pytest.raises(ValueError, match="Use mode 'shift'"):
        token_style(torch.zeros(1, 8, 4), torch.zeros(1, 27, 4))
