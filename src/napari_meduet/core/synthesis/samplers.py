"""From noise to data: ways to walk along a velocity (SiT, Table 10), a step at a time.

Each sampler is an iterator, so that its caller can show and stop. Times fall from 1, or from where partial
noise begins, to 0; no velocity is asked for at t = 0, where a generator that predicts data has none. What
the velocity is made of is guided.py's business; DiT is walked by diffusion.py.
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

Velocity = Callable[[Tensor, float], Tensor]  # (B, C, X, Y, Z) and a time
DrawNoise = Callable[[Tensor], Tensor]  # normal numbers, shaped like what they will be added to


@dataclass(frozen=True, kw_only=True, eq=False)
class SamplerState:
    """Where a sampler stands after a step.

    Attributes:
        step: steps done, from 1.
        data: the present guess of the latent without noise; at the end x itself.
    """

    step: int
    time: float
    x: Float[Tensor, "B C X Y Z"]
    data: Float[Tensor, "B C X Y Z"]


def walked(step: int, time: float, x: Tensor, data: Tensor) -> SamplerState:
    """The step's end, once every number is known to be finite."""
    if not bool(torch.isfinite(x).all()):
        raise ValueError(
            f"Sampling failed at step {step} (t = {time:.3f}): its numbers are no longer finite."
        )
    return SamplerState(step=step, time=time, x=x, data=data)


def time_grid(steps: int, start: float = 1.0) -> list[float]:
    """Evenly spaced times from the start to 0, one more than there are steps."""
    if steps < 1:
        raise ValueError(f"A sampler takes at least 1 step; got {steps}.")
    if not 0 < start <= 1:
        raise ValueError(f"Sampling starts at a time from more than 0 to 1 (all noise); got {start}.")
    return [start * (1 - step / steps) for step in range(steps)] + [0.0]


def euler(
    velocity: Velocity, x: Float[Tensor, "B C X Y Z"], times: Sequence[float]
) -> Iterator[SamplerState]:
    """First order: straight ahead along the velocity."""
    for step, (time, after) in enumerate(_intervals(times), start=1):
        slope = velocity(x, time)
        x = x + (after - time) * slope
        yield walked(step, after, x, data_of(x, slope, after))


def heun(velocity: Velocity, x: Float[Tensor, "B C X Y Z"], times: Sequence[float]) -> Iterator[SamplerState]:
    """Second order: the mean of the velocities at both ends; the last step, to t = 0, is Euler's (EDM)."""
    for step, (time, after) in enumerate(_intervals(times), start=1):
        slope = velocity(x, time)
        ahead = x + (after - time) * slope
        if after > 0:
            slope_ahead = velocity(ahead, after)
            ahead = x + (after - time) * (slope + slope_ahead) / 2
            slope = slope_ahead
        x = ahead
        yield walked(step, after, x, data_of(x, slope, after))


def multistep(
    velocity: Velocity, x: Float[Tensor, "B C X Y Z"], times: Sequence[float]
) -> Iterator[SamplerState]:
    """Third order at one evaluation a step: the predicted data, extrapolated from the last three steps.

    Between two times the data are taken for a polynomial of time, and the path of such data is known in
    closed form: noise shrinks as t does, whatever the polynomial. The first step is Heun's.
    """
    known: deque[tuple[float, Tensor]] = deque(maxlen=3)  # times and predicted data, the latest first
    for step, (time, after) in enumerate(_intervals(times), start=1):
        slope = velocity(x, time)
        data = data_of(x, slope, time)
        known.appendleft((time, data))
        if step == 1 and after > 0:
            ahead = x + (after - time) * slope
            x = x + (after - time) * (slope + velocity(ahead, after)) / 2
        else:
            x = x * (after / time) + _data_path(known, after)
        yield walked(step, after, x, x if after == 0 else data)


def _data_path(known: Sequence[tuple[float, Tensor]], after: float) -> Tensor:
    """What data on a polynomial through the known ones add to x between the latest time and the next.

    t' times the integral of data(s) / s^2 from t' to t, for Newton's form of the polynomial.
    """
    time, data = known[0]
    logarithm = after * math.log(time / after) if after > 0 else 0.0  # t' ln(t / t')
    share = 1 - after / time
    path = share * data
    if len(known) > 1:
        before, data_before = known[1]
        slope = (data - data_before) / (time - before)
        path = path + (logarithm - (time - after)) * slope
    if len(known) > 2:
        first, data_first = known[2]
        slope_before = (data_before - data_first) / (before - first)
        bend = (slope - slope_before) / (time - first)
        path = path + (after * (time - after) - (time + before) * logarithm + time * before * share) * bend
    return path


def euler_maruyama(
    velocity: Velocity, x: Float[Tensor, "B C X Y Z"], times: Sequence[float], draw_noise: DrawNoise
) -> Iterator[SamplerState]:
    """SiT's stochastic sampler with w_t = sigma_t; the last step takes the mean and adds no noise.

    dx = (v - w s / 2) dt + sqrt(w) dW, backwards in time. The score s of x_t is -e / t, so with w = t,
    -w s / 2 is half the predicted noise.
    """
    for step, (time, after) in enumerate(_intervals(times), start=1):
        slope = velocity(x, time)
        data = data_of(x, slope, time)
        noise = noise_of(x, slope, time)
        x = x + (after - time) * (slope + noise / 2)
        if after > 0:
            x = x + math.sqrt(time * (time - after)) * draw_noise(x)
        yield walked(step, after, x, x if after == 0 else data)


SAMPLERS = {"euler": euler, "heun": heun, "multistep": multistep, "em": euler_maruyama}


def evaluations_per_step(name: str) -> int:
    """Velocities that a sampler asks for at each step (Heun one less in all, multistep one more)."""
    return 2 if name == "heun" else 1


def _intervals(times: Sequence[float]) -> Iterator[tuple[float, float]]:
    if len(times) < 2 or times[-1] != 0 or any(a <= b for a, b in pairwise(times)):
        raise ValueError(f"A sampler's times fall to 0; got {list(times)}.")
    return pairwise(times)
