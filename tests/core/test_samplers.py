"""Samplers for SiT on normal data with a mean, whose velocity, paths and marginals are known."""

import math
from functools import partial

import pytest
import torch

from napari_meduet.core.synthesis.sampler_registry import SAMPLERS
from napari_meduet.core.synthesis.samplers import (
    VELOCITY_SAMPLERS,
    euler,
    euler_maruyama,
    heun,
    multistep,
    time_grid,
)

MEAN, STD = 0.5, 2.0
ODE = ("euler", "heun", "multistep")


def variance(time: float) -> float:
    return (1 - time) ** 2 * STD**2 + time**2


def gaussian_velocity(x: torch.Tensor, time: float) -> torch.Tensor:
    """E(noise | x) - E(data | x)."""
    away = (x - (1 - time) * MEAN) / variance(time)
    return time * away - (MEAN + (1 - time) * STD**2 * away)


def one(value: float = 1.0) -> torch.Tensor:
    return torch.full((1, 1, 1, 1, 1), value, dtype=torch.float64)


def last(steps):
    *_, walked = steps
    return walked


def error(name: str, steps: int) -> float:
    """Return the error at the end of the path from noise 1, which ends one std above the mean."""
    return abs(
        float(last(VELOCITY_SAMPLERS[name](gaussian_velocity, one(), time_grid(steps))).x) - (MEAN + STD)
    )


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("multistep", 3)])
def test_the_order_of_each_sampler_is_measured(name, order):
    measured = math.log2(error(name, 80) / error(name, 320)) / 2
    assert abs(measured - order) < 0.1
    assert SAMPLERS[name].order == order


def test_at_equal_evaluations_the_higher_order_is_nearer():
    assert error("multistep", 24) < error("heun", 12) < error("euler", 24)


@pytest.mark.parametrize("name", ODE)
def test_a_straight_path_is_walked_exactly_in_any_number_of_steps(name):
    data = 3.0
    for steps in (1, 2, 7):
        reached = last(VELOCITY_SAMPLERS[name](lambda x, time: (x - data) / time, one(), time_grid(steps)))
        assert torch.allclose(reached.x, one(data))


@pytest.mark.parametrize("name", ODE)
def test_a_walk_may_begin_between_data_and_noise(name):
    start = 0.6
    x = one((1 - start) * MEAN + math.sqrt(variance(start)))  # the path that began at noise 1
    reached = last(VELOCITY_SAMPLERS[name](gaussian_velocity, x, time_grid(400, start)))
    assert torch.allclose(reached.x, one(MEAN + STD), atol=0.01)


def test_multistep_follows_data_of_a_quadratic_in_time():
    """Data 1 + 2 t + 3 t^2: x / t changes by data / t^2, whose integral is known."""
    field = lambda x, time: (x - (1 + 2 * time + 3 * time**2)) / time  # noqa: E731
    known = lambda t: t * (5.0 + 1 / t - 1 - 2 * math.log(t) - 3 * (t - 1))  # noqa: E731
    times = [1.0, 0.999, 0.998, 0.7, 0.35, 0.1]
    for walked in multistep(field, one(5.0), [*times, 0.0]):
        expected = known(walked.time) if walked.time else 1.0
        assert torch.allclose(walked.x, one(expected), atol=1e-5)


@pytest.mark.parametrize(("name", "extra"), [("euler", 0), ("heun", -1), ("multistep", 1)])
def test_evaluations_are_those_announced_and_never_at_zero(name, extra):
    asked = []

    def field(x, time):
        asked.append(time)
        return gaussian_velocity(x, time)

    steps = list(VELOCITY_SAMPLERS[name](field, one(), time_grid(8)))
    assert len(asked) == 8 * SAMPLERS[name].evaluations_per_step + extra
    assert min(asked) > 0
    assert [walked.step for walked in steps] == list(range(1, 9))
    assert [walked.time for walked in steps] == time_grid(8)[1:]


@pytest.mark.parametrize("name", [*ODE, "em"])
def test_the_guess_of_the_data_ends_in_the_sample(name):
    sampler = (
        partial(euler_maruyama, draw_noise=torch.randn_like) if name == "em" else VELOCITY_SAMPLERS[name]
    )
    steps = list(sampler(gaussian_velocity, one(), time_grid(200)))
    assert torch.allclose(steps[-1].data, steps[-1].x)
    assert torch.allclose(steps[0].data, one(MEAN), atol=0.1)  # of pure noise: the mean


def test_euler_maruyama_keeps_the_marginals_all_along_the_way():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 1, 1, 1, 1, generator=random)
    draw = lambda like: torch.randn(like.shape, generator=random)  # noqa: E731
    for walked in euler_maruyama(gaussian_velocity, x, time_grid(250), draw):
        if walked.step % 50 == 0:
            assert abs(float(walked.x.mean()) - (1 - walked.time) * MEAN) < 0.05
            assert abs(float(walked.x.std()) / math.sqrt(variance(walked.time)) - 1) < 0.02


def test_the_last_step_of_euler_maruyama_takes_the_mean():
    reached = last(euler_maruyama(gaussian_velocity, one(), [0.5, 0.0], torch.randn_like))
    slope = gaussian_velocity(one(), 0.5)
    noise = 1.0 + 0.5 * slope
    assert torch.equal(reached.x, one() - 0.5 * (slope + noise / 2))


def test_every_step_of_euler_maruyama_but_the_last_adds_noise():
    drawn = []
    list(euler_maruyama(gaussian_velocity, one(), time_grid(5), lambda x: drawn.append(x) or x))
    assert len(drawn) == 4


@pytest.mark.parametrize(("sampler", "step"), [(euler, 3), (heun, 2), (multistep, 3)])
def test_numbers_that_are_no_longer_finite_name_their_step(sampler, step):
    def field(x, time):
        return x * math.nan if time < 0.7 else x

    with pytest.raises(ValueError, match=rf"step {step} \(t = 0\."):
        list(sampler(field, one(), [1.0, 0.8, 0.6, 0.2, 0.0]))


@pytest.mark.parametrize("times", [[1.0], [1.0, 0.5], [0.0, 0.0], [0.5, 0.6, 0.0], [0.0, 1.0]])
def test_times_must_fall_to_zero(times):
    with pytest.raises(ValueError, match="fall to 0"):
        list(euler(gaussian_velocity, one(), times))


def test_the_grid_of_times_by_hand():
    assert time_grid(4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert time_grid(2, start=0.5) == [0.5, 0.25, 0.0]


@pytest.mark.parametrize(("steps", "start"), [(0, 1.0), (3, 0.0), (3, 1.1)])
def test_an_impossible_grid_is_refused(steps, start):
    with pytest.raises(ValueError, match="got"):
        time_grid(steps, start)
