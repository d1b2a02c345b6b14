"""Samplers for DiT on normal data with mean 0, whose noise, paths and marginals are known."""

import math

import pytest
import torch

from napari_meduet.core.synthesis.diffusion import (
    NUM_STEPS,
    add_noise,
    ddim,
    ddpm,
    diffused,
    diffusion_times,
    signal_fractions,
)
from napari_meduet.core.synthesis.interpolant import noised

STD = 2.0
SHARES = signal_fractions().tolist()


def spread(step: int) -> float:
    return math.sqrt(SHARES[step] * STD**2 + 1 - SHARES[step])


def gaussian_noise(x: torch.Tensor, time: float) -> torch.Tensor:
    """E(noise | x)."""
    step = round(time * NUM_STEPS)
    return math.sqrt(1 - SHARES[step]) * x / spread(step) ** 2


def one() -> torch.Tensor:
    return torch.ones((1, 1, 1, 1, 1), dtype=torch.float64)


def last(steps):
    *_, walked = steps
    return walked


def test_the_shares_of_signal_by_hand():
    assert len(SHARES) == 1001
    assert SHARES[0] == 1
    assert math.isclose(SHARES[1], 1 - 1e-4)
    assert math.isclose(SHARES[2], (1 - 1e-4) * (1 - 1e-4 - 0.0199 / 999))
    assert math.isclose(SHARES[1000], 4.0358e-5, rel_tol=1e-4)  # the published value of DDPM's schedule


def test_diffusion_runs_from_data_to_noise_and_keeps_variance():
    data, noise = torch.full((1, 2), 3.0), torch.full((1, 2), -1.0)
    assert torch.equal(diffused(data, noise, torch.tensor([0.0])), data)
    assert torch.allclose(diffused(data, noise, torch.tensor([1.0])), noise, atol=0.03)
    share = SHARES[300]
    middle = diffused(data, noise, torch.tensor([0.3]))
    assert torch.allclose(middle, share**0.5 * data + (1 - share) ** 0.5 * noise)


def test_each_generator_learns_on_its_own_path():
    data, noise, time = torch.randn(2, 3), torch.randn(2, 3), torch.tensor([0.2, 0.7])
    assert torch.equal(add_noise("noise", data, noise, time), diffused(data, noise, time))
    for prediction in ("velocity", "data"):
        assert torch.equal(add_noise(prediction, data, noise, time), noised(data, noise, time))


def test_the_order_of_ddim_is_measured():
    """Along the path through noise 1 the distance from the mean is a constant number of stds."""

    def error(steps: int) -> float:
        return abs(float(last(ddim(gaussian_noise, one(), diffusion_times(steps))).x) - STD / spread(1000))

    assert abs(math.log2(error(50) / error(200)) / 2 - 1) < 0.1


def test_ddim_with_the_true_noise_finds_the_data_in_one_step():
    data, noise = one() * 3, one() * -0.5
    x = diffused(data, noise, torch.tensor([0.6]))
    reached = last(ddim(lambda x, time: noise, x, [0.6, 0.0]))
    assert torch.allclose(reached.x, data)
    assert torch.allclose(reached.data, data)


def test_ddpm_by_hand():
    """From step 2 to 1: alpha is 1 - beta_2, the mean as in Ho et al. 2020, Eq. 7."""
    alpha, share, before = SHARES[2] / SHARES[1], SHARES[2], SHARES[1]
    x, noise = one() * 0.8, one() * 0.3
    data = (x - (1 - share) ** 0.5 * noise) / share**0.5
    mean = before**0.5 * (1 - alpha) / (1 - share) * data + alpha**0.5 * (1 - before) / (1 - share) * x
    variance = (1 - before) / (1 - share) * (1 - alpha)
    first = next(ddpm(lambda x, time: noise, x, [0.002, 0.001, 0.0], torch.ones_like))
    assert torch.allclose(first.x, mean + variance**0.5)
    same = (x - (1 - alpha) / (1 - share) ** 0.5 * noise) / alpha**0.5  # their Eq. 11
    assert torch.allclose(mean, same)


def test_ddpm_with_every_step_keeps_the_marginals():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 1, 1, 1, 1, generator=random)
    draw = lambda like: torch.randn(like.shape, generator=random)  # noqa: E731
    for walked in ddpm(gaussian_noise, x, diffusion_times(NUM_STEPS), draw):
        if walked.step % 250 == 0:
            expected = spread(NUM_STEPS - walked.step)
            assert abs(float(walked.x.std()) / expected - 1) < 0.02


def test_with_250_steps_ddpm_loses_little_of_the_spread():
    """The noise of skipped steps has the posterior's variance, the smaller of the two known bounds."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 1, 1, 1, 1, generator=random)
    draw = lambda like: torch.randn(like.shape, generator=random)  # noqa: E731
    reached = last(ddpm(gaussian_noise, x, diffusion_times(250), draw))
    assert 0.95 < float(reached.x.std()) / STD < 1.02


def test_numbers_that_are_no_longer_finite_name_their_step():
    with pytest.raises(ValueError, match="step 2"):
        list(ddim(lambda x, time: x / (time > 0.6), one(), [1.0, 0.5, 0.2, 0.0]))


def test_times_are_whole_thousandths():
    assert diffusion_times(4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert diffusion_times(3) == [1.0, 0.667, 0.333, 0.0]


def test_more_steps_than_there_are_are_refused():
    with pytest.raises(ValueError, match="at most 500 steps are possible; got 501"):
        diffusion_times(501, start=0.5)
    with pytest.raises(ValueError, match=r"by at least 0\.001"):
        list(ddim(gaussian_noise, one(), [0.5, 0.4999, 0.0]))
