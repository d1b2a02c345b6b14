"""Sampling by the name of a sampler: its times and its steps (specification, section 9).

`sampler_registry.py` describes each sampler, `samplers.py` and `diffusion.py` implement them.
"""

from collections.abc import Callable, Iterator, Sequence

from jaxtyping import Float
from torch import Tensor

from napari_meduet.core.synthesis.diffusion import NOISE_SAMPLERS, diffusion_times
from napari_meduet.core.synthesis.sampler_registry import SAMPLERS, SamplerName
from napari_meduet.core.synthesis.samplers import (
    VELOCITY_SAMPLERS,
    DrawNoise,
    SamplerState,
    Velocity,
    time_grid,
)

FUNCTIONS: dict[str, Callable[..., Iterator[SamplerState]]] = VELOCITY_SAMPLERS | NOISE_SAMPLERS


def sampling_times(sampler: SamplerName, steps: int, start: float = 1.0) -> list[float]:
    """Return the times at which a sampler evaluates the network, falling from `start` to 0.

    Raises:
        ValueError: the sampler cannot make so many steps from this start.
    """
    times = diffusion_times if SAMPLERS[sampler].generator == "DiT" else time_grid
    return times(steps, start)


def sampling_steps(
    sampler: SamplerName,
    velocity: Velocity,
    x: Float[Tensor, "B C X Y Z"],
    times: Sequence[float],
    draw_noise: DrawNoise,
) -> Iterator[SamplerState]:
    """Return the states of a sampler after each of its steps.

    Args:
        velocity: predicted velocity of a SiT, or predicted noise of a DiT.
        draw_noise: used by stochastic samplers only.

    Examples:
        >>> noise = torch.ones(1, 1, 1, 1, 1)
        >>> times = sampling_times("euler", steps=2)
        >>> *_, last = sampling_steps("euler", lambda x, time: x, noise, times, torch.randn_like)
        >>> last.x.item()
        0.25
    """
    if SAMPLERS[sampler].is_stochastic:
        return FUNCTIONS[sampler](velocity, x, times, draw_noise)
    return FUNCTIONS[sampler](velocity, x, times)
