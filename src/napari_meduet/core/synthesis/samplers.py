"""Samplers for SiT: solvers that follow a velocity from noise to data, one step at a time (Table 10).

Each sampler is an iterator, so its caller can show previews and stop. Times fall from 1, or from the time of
partial noise, to 0. No velocity is evaluated at t = 0, where it is not defined for a generator that predicts
data. `guided.py` computes the velocity, `diffusion.py` holds the samplers for DiT, and `sampler_registry.py`
describes all samplers.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from napari_meduet.core.synthesis.interpolant import data_of, noise_of

Velocity = Callable[[Tensor, float], Tensor]  # of a latent (B, C, X, Y, Z) at a time
DrawNoise = Callable[[Tensor], Tensor]  # returns normal numbers in the shape of its argument


@dataclass(frozen=True, kw_only=True, eq=False)
class SamplerState:
    """State of a sampler after a step.

    Attributes:
        step: number of steps done, from 1.
        time: time that the step has reached, 0 at the end.
        x: the noised latent at this time.
        data: prediction of the latent without noise; it equals x at the end.
    """

    step: int
    time: float
    x: Float[Tensor, "B C X Y Z"]
    data: Float[Tensor, "B C X Y Z"]


def sampler_state(
    step: int, time: float, x: Float[Tensor, "B C X Y Z"], data: Float[Tensor, "B C X Y Z"]
) -> SamplerState:
    """Return the state after a step.

    Raises:
        ValueError: the latent has values that are not finite.
    """
    if not bool(torch.isfinite(x).all()):
        raise ValueError(
            f"Sampling failed at step {step} (t = {time:.3f}): the latent has values that are not finite."
        )
    return SamplerState(step=step, time=time, x=x, data=data)


def time_grid(steps: int, start: float = 1.0) -> list[float]:
    """Return `steps` + 1 evenly spaced times from `start` to 0.

    Examples:
        >>> time_grid(4)
        [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if steps < 1:
        raise ValueError(f"A sampler needs at least 1 step; got {steps}.")
    if not 0 < start <= 1:
        raise ValueError(f"Sampling starts at a time above 0 and up to 1 (pure noise); got {start}.")
    return [start * (1 - step / steps) for step in range(steps)] + [0.0]


def euler(
    velocity: Velocity, x: Float[Tensor, "B C X Y Z"], times: Sequence[float]
) -> Iterator[SamplerState]:
    """Euler's method, first order."""
    for step, (time, after) in enumerate(_intervals(times), start=1):
        slope = velocity(x, time)
        x = x + (after - time) * slope
        yield sampler_state(step, after, x, data_of(x, slope, after))


def heun(velocity: Velocity, x: Float[Tensor, "B C X Y Z"], times: Sequence[float]) -> Iterator[SamplerState]:
    """Heun's method, second order: the mean of the velocities at both ends of a step.

    The last step, to t = 0, is Euler's, as in EDM.
    """
    for step, (time, after) in enumerate(_intervals(times), start=1):
        slope = velocity(x, time)
        ahead = x + (after - time) * slope
        if after > 0:
            slope_ahead = velocity(ahead, after)
            ahead = x + (after - time) * (slope + slope_ahead) / 2
            slope = slope_ahead
        x = ahead
        yield sampler_state(step, after, x, data_of(x, slope, after))


def multistep(
    velocity: Velocity, x: Float[Tensor, "B C X Y Z"], times: Sequence[float]
) -> Iterator[SamplerState]:
    """Multistep method, third order at one evaluation per step.

    Between two times the predicted data are approximated by a polynomial of time through the last three
    predictions. The path for such data is known in closed form. The first step is Heun's.
    """
    known: deque[tuple[float, Tensor]] = deque(maxlen=3)  # times and predicted data, latest first
    for step, (time, after) in enumerate(_intervals(times), start=1):
        slope = velocity(x, time)
        data = data_of(x, slope, time)
        known.appendleft((time, data))
        if step == 1 and after > 0:
            ahead = x + (after - time) * slope
            x = x + (after - time) * (slope + velocity(ahead, after)) / 2
        else:
            x = x * (after / time) + _data_path(known, after)
        yield sampler_state(step, after, x, x if after == 0 else data)


def _data_path(
    known: Sequence[tuple[float, Float[Tensor, "B C X Y Z"]]], after: float
) -> Float[Tensor, "B C X Y Z"]:
    """Return what the polynomial through the known data adds to x between the latest time and `after`.

    This is t' times the integral of data(s) / s^2 from t' to t, with the polynomial in Newton's form.
    """
    time, data = known[0]
    logarithm = after * math.log(time / after) if after > 0 else 0.0  # t' ln(t / t')
    fraction = 1 - after / time
    path = fraction * data
    if len(known) > 1:
        before, data_before = known[1]
        slope = (data - data_before) / (time - before)
        path = path + (logarithm - (time - after)) * slope
    if len(known) > 2:
        first, data_first = known[2]
        slope_before = (data_before - data_first) / (before - first)
        bend = (slope - slope_before) / (time - first)
        path = path + (after * (time - after) - (time + before) * logarithm + time * before * fraction) * bend
    return path


def euler_maruyama(
    velocity: Velocity, x: Float[Tensor, "B C X Y Z"], times: Sequence[float], draw_noise: DrawNoise
) -> Iterator[SamplerState]:
    """SiT's stochastic sampler (Euler-Maruyama) with w_t = sigma_t.

    The equation is dx = (v - w s / 2) dt + sqrt(w) dW, backwards in time. The score s of x_t is -e / t, so
    with w = t the term -w s / 2 is half the predicted noise. The last step takes the mean and adds no noise.
    """
    for step, (time, after) in enumerate(_intervals(times), start=1):
        slope = velocity(x, time)
        data = data_of(x, slope, time)
        noise = noise_of(x, slope, time)
        x = x + (after - time) * (slope + noise / 2)
        if after > 0:
            x = x + math.sqrt(time * (time - after)) * draw_noise(x)
        yield sampler_state(step, after, x, x if after == 0 else data)


VELOCITY_SAMPLERS = {"multistep": multistep, "heun": heun, "euler": euler, "em": euler_maruyama}


def _intervals(times: Sequence[float]) -> Iterator[tuple[float, float]]:
    if len(times) < 2 or times[-1] != 0 or any(a <= b for a, b in pairwise(times)):
        raise ValueError(f"The times of a sampler must fall to 0; got {list(times)}.")
    return pairwise(times)
