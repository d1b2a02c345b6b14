"""The sampler registry agrees with the functions, and sampling by name equals calling the function."""

from typing import get_args

import pytest
import torch
from test_samplers import gaussian_velocity, one

from napari_meduet.core.synthesis.diffusion import NOISE_SAMPLERS, diffusion_times
from napari_meduet.core.synthesis.sampler_registry import (
    SAMPLERS,
    SamplerName,
    default_sampler,
    generator_kind,
    samplers_for,
)
from napari_meduet.core.synthesis.samplers import VELOCITY_SAMPLERS, time_grid
from napari_meduet.core.synthesis.sampling import FUNCTIONS, sampling_steps, sampling_times


def test_every_sampler_has_a_record_and_a_function():
    assert tuple(SAMPLERS) == get_args(SamplerName)
    assert tuple(samplers_for("SiT")) == tuple(VELOCITY_SAMPLERS)
    assert tuple(samplers_for("DiT")) == tuple(NOISE_SAMPLERS)


def test_the_default_of_each_kind_of_generator():
    assert (
        default_sampler(generator_kind("velocity")) == default_sampler(generator_kind("data")) == "multistep"
    )
    assert default_sampler(generator_kind("noise")) == "ddim"


def test_times_belong_to_the_kind_of_generator():
    assert sampling_times("heun", 7, 0.6) == time_grid(7, 0.6)
    assert sampling_times("ddim", 7, 0.6) == diffusion_times(7, 0.6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_by_name_is_its_function_and_draws_noise_only_if_stochastic(name):
    times, drawn = sampling_times(name, 4), []

    def draw_noise(like):
        drawn.append(like)
        return torch.full_like(like, 0.5)

    *_, last = sampling_steps(name, gaussian_velocity, one(), times, draw_noise)
    assert bool(drawn) is SAMPLERS[name].is_stochastic
    arguments = (draw_noise,) if SAMPLERS[name].is_stochastic else ()
    *_, expected = FUNCTIONS[name](gaussian_velocity, one(), times, *arguments)
    assert torch.equal(last.x, expected.x)
