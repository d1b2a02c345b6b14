"""Noise that is added in a thousand steps and taken away again (DiT; Table 10, its columns put right).

Betas grow evenly from 0.0001 to 0.02; a generator that predicts the noise walks back with DDPM or DDIM. Time
keeps its direction: step k is t = k / 1000, data at 0. The straight path of SiT is interpolant.py's business.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from napari_meduet.core.synthesis.interpolant import broadcast, noised
from napari_meduet.core.synthesis.samplers import DrawNoise, SamplerState, Velocity, time_grid, walked

NUM_STEPS = 1000
FIRST_BETA, LAST_BETA = 1e-4, 0.02  # Ho et al. 2020; DiT keeps them


def signal_shares() -> Float[Tensor, " T"]:
    """alpha-bar: how much of the variance is still the data's after k steps of noise, k = 0 to 1000."""
    betas = torch.linspace(FIRST_BETA, LAST_BETA, NUM_STEPS, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)])


def diffused(
    data: Float[Tensor, "B *S"], noise: Float[Tensor, "B *S"], time: Float[Tensor, " B"]
) -> Float[Tensor, "B *S"]:
    """x_k = sqrt(alpha-bar) x + sqrt(1 - alpha-bar) e, at the step nearest to the time."""
    steps = (time * NUM_STEPS).round().long()
    share = broadcast(signal_shares()[steps.cpu()], data)
    return share.sqrt().to(data) * data + (1 - share).sqrt().to(data) * noise


def on_its_path(
    prediction: str, data: Float[Tensor, "B *S"], noise: Float[Tensor, "B *S"], time: Float[Tensor, " B"]
) -> Float[Tensor, "B *S"]:
    """A noised latent as a generator knows it: diffused for one that predicts the noise, else in between."""
    return (diffused if prediction == "noise" else noised)(data, noise, time)


def diffusion_times(steps: int, start: float = 1.0) -> list[float]:
    """Times for `ddpm` and `ddim`: evenly spaced among the thousand."""
    if steps > round(start * NUM_STEPS):
        raise ValueError(f"From t = {start} there are {round(start * NUM_STEPS)} steps at most; got {steps}.")
    return [round(time * NUM_STEPS) / NUM_STEPS for time in time_grid(steps, start)]


def ddim(noise_at: Velocity, x: Float[Tensor, "B C X Y Z"], times: Sequence[float]) -> Iterator[SamplerState]:
    """Noise and data are told apart and mixed anew, with less noise (Song et al. 2021, eta = 0)."""
    for step, (time, after, share, share_after) in enumerate(_shares(times), start=1):
        noise = noise_at(x, time)
        data = _data(x, noise, share)
        x = share_after**0.5 * data + (1 - share_after) ** 0.5 * noise
        yield walked(step, after, x, data)


def ddpm(
    noise_at: Velocity, x: Float[Tensor, "B C X Y Z"], times: Sequence[float], draw_noise: DrawNoise
) -> Iterator[SamplerState]:
    """A draw from the posterior of the step before, given the predicted data (Ho et al. 2020).

    With fewer than a thousand steps, the noise of those left out is added in one. The variance is the
    posterior's; the last step adds none.
    """
    for step, (time, after, share, share_after) in enumerate(_shares(times), start=1):
        data = _data(x, noise_at(x, time), share)
        kept = share / share_after  # alpha of this step; beta is 1 - alpha
        x = (share_after**0.5 * (1 - kept) * data + kept**0.5 * (1 - share_after) * x) / (1 - share)
        if after > 0:
            x = x + ((1 - kept) * (1 - share_after) / (1 - share)) ** 0.5 * draw_noise(x)
        yield walked(step, after, x, data)


DIFFUSION_SAMPLERS = {"ddpm": ddpm, "ddim": ddim}


def _data(x: Tensor, noise: Tensor, share: float) -> Tensor:
    return (x - (1 - share) ** 0.5 * noise) / share**0.5


def _shares(times: Sequence[float]) -> Iterator[tuple[float, float, float, float]]:
    """Times and alpha-bars at both ends of each step."""
    steps = [round(time * NUM_STEPS) for time in times]
    if len(steps) < 2 or steps[-1] != 0 or any(a <= b for a, b in pairwise(steps)):
        raise ValueError(f"A sampler's times fall to 0, by a thousandth at least; got {list(times)}.")
    shares = signal_shares().tolist()
    for (time, after), (step, step_after) in zip(pairwise(times), pairwise(steps), strict=True):
        yield time, after, shares[step], shares[step_after]
