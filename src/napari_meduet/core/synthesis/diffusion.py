"""Diffusion in 1000 steps, and the samplers for DiT, which predict noise (Table 10 with exchanged columns).

Betas grow linearly from 0.0001 to 0.02. Time has the same direction as everywhere: step k is t = k / 1000,
and t = 0 is data. `interpolant.py` holds the straight path of SiT.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from napari_meduet.core.synthesis.interpolant import broadcast, noised
from napari_meduet.core.synthesis.samplers import DrawNoise, SamplerState, Velocity, sampler_state, time_grid

NUM_STEPS = 1000
FIRST_BETA, LAST_BETA = 1e-4, 0.02  # Ho et al. 2020; DiT keeps them


def signal_fractions() -> Float[Tensor, " T"]:
    """Return alpha-bar: the fraction of the variance that comes from the data at step k = 0 to 1000."""
    betas = torch.linspace(FIRST_BETA, LAST_BETA, NUM_STEPS, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)])


def diffused(
    data: Float[Tensor, "B *S"], noise: Float[Tensor, "B *S"], time: Float[Tensor, " B"]
) -> Float[Tensor, "B *S"]:
    """Return x_k = sqrt(alpha-bar) x + sqrt(1 - alpha-bar) e at the step closest to the time."""
    steps = (time * NUM_STEPS).round().long()
    signal = broadcast(signal_fractions()[steps.cpu()], data)
    return signal.sqrt().to(data) * data + (1 - signal).sqrt().to(data) * noise


def add_noise(
    prediction: str, data: Float[Tensor, "B *S"], noise: Float[Tensor, "B *S"], time: Float[Tensor, " B"]
) -> Float[Tensor, "B *S"]:
    """Return the noised latent on the path of a generator: `diffused` if it predicts noise, else `noised`."""
    return (diffused if prediction == "noise" else noised)(data, noise, time)


def diffusion_times(steps: int, start: float = 1.0) -> list[float]:
    """Return the times for `ddpm` and `ddim`, evenly spaced among the 1000 steps."""
    if steps > round(start * NUM_STEPS):
        raise ValueError(
            f"From t = {start} at most {round(start * NUM_STEPS)} steps are possible; got {steps}."
        )
    return [round(time * NUM_STEPS) / NUM_STEPS for time in time_grid(steps, start)]


def ddim(noise_at: Velocity, x: Float[Tensor, "B C X Y Z"], times: Sequence[float]) -> Iterator[SamplerState]:
    """DDIM with eta = 0 (Song et al. 2021): separate data and noise, then mix them with less noise."""
    for step, (time, after, signal, signal_after) in enumerate(_intervals(times), start=1):
        noise = noise_at(x, time)
        data = _data(x, noise, signal)
        x = signal_after**0.5 * data + (1 - signal_after) ** 0.5 * noise
        yield sampler_state(step, after, x, data)


def ddpm(
    noise_at: Velocity, x: Float[Tensor, "B C X Y Z"], times: Sequence[float], draw_noise: DrawNoise
) -> Iterator[SamplerState]:
    """DDPM (Ho et al. 2020): draw from the posterior of the previous step, given the predicted data.

    With fewer than 1000 steps, one step covers the noise of all skipped steps. The variance is that of the
    posterior. The last step adds no noise.
    """
    for step, (time, after, signal, signal_after) in enumerate(_intervals(times), start=1):
        data = _data(x, noise_at(x, time), signal)
        alpha = signal / signal_after  # of this step; beta is 1 - alpha
        x = (signal_after**0.5 * (1 - alpha) * data + alpha**0.5 * (1 - signal_after) * x) / (1 - signal)
        if after > 0:
            x = x + ((1 - alpha) * (1 - signal_after) / (1 - signal)) ** 0.5 * draw_noise(x)
        yield sampler_state(step, after, x, data)


NOISE_SAMPLERS = {"ddim": ddim, "ddpm": ddpm}


def _data(
    x: Float[Tensor, "B C X Y Z"], noise: Float[Tensor, "B C X Y Z"], signal: float
) -> Float[Tensor, "B C X Y Z"]:
    return (x - (1 - signal) ** 0.5 * noise) / signal**0.5


def _intervals(times: Sequence[float]) -> Iterator[tuple[float, float, float, float]]:
    """Return times and alpha-bars at both ends of each step."""
    steps = [round(time * NUM_STEPS) for time in times]
    if len(steps) < 2 or steps[-1] != 0 or any(a <= b for a, b in pairwise(steps)):
        raise ValueError(f"The times of a sampler must fall to 0 by at least 0.001; got {list(times)}.")
    signals = signal_fractions().tolist()
    for (time, after), (step, step_after) in zip(pairwise(times), pairwise(steps), strict=True):
        yield time, after, signals[step], signals[step_after]
