"""Simulated scanners change what scanners change, and leave the rest."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from meduet_training.data.augmentation.scanners import (
    CT_SCANNERS,
    MR_SCANNERS,
    Scanner,
    random_scanner,
    see_through,
)

SHAPE = (24, 24, 8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def through(values: torch.Tensor, scanner: Scanner, modality: str) -> torch.Tensor:
    return see_through(values[None], [scanner], modality, generator())[0]


def ct_noise() -> torch.Tensor:
    return 40.0 + 100.0 * torch.randn(SHAPE, generator=generator(1))


def mr_noise() -> torch.Tensor:
    return torch.rand(SHAPE, generator=generator(1))


@pytest.mark.parametrize(("values", "modality"), [(ct_noise(), "CT"), (mr_noise(), "MR")])
def test_the_scanner_that_differs_in_nothing_changes_nothing(values, modality):
    assert torch.equal(through(values, Scanner(), modality), values)


@pytest.mark.parametrize("grain", [0.0, 1.0])
def test_noise_has_the_deviation_asked_for(grain):
    flat = torch.full(SHAPE, 40.0)
    noise = through(flat, Scanner(noise=15.0, noise_grain=grain), "CT") - flat
    assert noise.std() == pytest.approx(15.0, rel=1e-3)
    neighbours = torch.corrcoef(torch.stack([noise[1:].flatten(), noise[:-1].flatten()]))[0, 1]
    assert (neighbours > 0.5) == (grain > 0)


def test_noise_of_mr_lies_in_the_body():
    half = torch.zeros(SHAPE)
    half[12:] = 0.5
    noise = through(half, Scanner(noise=0.05), "MR") - half
    assert noise[12:].std() == pytest.approx(0.05, rel=0.1)
    assert noise[:12].abs().max() < 0.005


@pytest.mark.parametrize(("blur", "is_smoother"), [(0.9, True), (-0.7, False)])
def test_a_kernel_keeps_the_mean_and_changes_the_detail(blur, is_smoother):
    values = torch.full(SHAPE, 40.0)
    values[8:16, 8:16] += 30 * torch.randn(8, 8, 8, generator=generator(2))  # the border is flat
    seen = through(values, Scanner(blur=blur), "CT")
    assert abs(seen.mean() - values.mean()) < 1e-3
    assert (seen.std() < values.std()) == is_smoother


def test_a_kernel_acts_within_slices():
    slices = 100.0 * torch.arange(8.0).expand(SHAPE)
    torch.testing.assert_close(through(slices, Scanner(blur=1.2), "CT"), slices)


def test_ct_contrast_turns_around_soft_tissue_by_hand():
    tissue = torch.tensor([40.0, 140.0, 0.0, 2000.0]).view(4, 1, 1)
    seen = through(tissue, Scanner(contrast=1.25, offset=15.0), "CT").flatten()
    # 40 stays, 100 above becomes 125, 40 below 50, and bone moves by no more than 600 / 4; then 15 more.
    assert seen.tolist() == pytest.approx([55.0, 180.0, 5.0, 2165.0], abs=0.05)


def test_mr_tone_by_hand():
    tissue = torch.tensor([0.25, 0.81]).view(2, 1, 1)
    assert through(tissue, Scanner(contrast=0.5), "MR").flatten().tolist() == pytest.approx([0.5, 0.9])
    turned = through(tissue, Scanner(inverted=1.0), "MR").flatten()
    assert turned.tolist() == pytest.approx([0.75, 0.19], abs=1e-3)
    assert through(tissue, Scanner(inverted=0.5), "MR").flatten().tolist() == pytest.approx(
        [0.5, 0.5], abs=1e-3
    )


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_air_stays_air_through_any_scanner(seed):
    air = torch.full(SHAPE, -1000.0)
    noiseless = random_scanner("CT", generator(seed))
    noiseless = Scanner(blur=noiseless.blur, contrast=noiseless.contrast, offset=noiseless.offset)
    assert (through(air, noiseless, "CT") - air).abs().max() < 0.1
    assert through(torch.zeros(SHAPE), random_scanner("MR", generator(seed)), "MR").max() < 0.03


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_mr_stays_in_its_units_and_ct_in_its_range(seed):
    mr = through(mr_noise(), random_scanner("MR", generator(seed)), "MR")
    assert mr.isfinite().all()
    assert 0.0 <= mr.min() <= mr.max() <= 1.0
    ct = through(ct_noise() * 30, random_scanner("CT", generator(seed)), "CT")
    assert -1024.0 <= ct.min() <= ct.max() <= 3071.0


def test_each_volume_of_a_batch_has_its_own_scanner():
    values = ct_noise().expand(2, *SHAPE)
    plain, blurred = see_through(values, [Scanner(), Scanner(blur=0.9)], "CT", generator())
    assert torch.equal(plain, values[0])
    torch.testing.assert_close(blurred, through(values[1], Scanner(blur=0.9), "CT"))


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_seed_draws_the_same_scanner_again(modality):
    drawn = [random_scanner(modality, generator(seed)) for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("scanners", [CT_SCANNERS, MR_SCANNERS])
def test_the_listed_scanners_differ(scanners):
    assert len(set(scanners)) == len(scanners)
