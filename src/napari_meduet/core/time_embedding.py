"""Sinusoidal embedding of the time of a noised latent, as in DiT.

The generator (`synthesis/generator.py`) and masked diffusion (`pretexts/time_conditioning.py`) use it.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

TIME_WIDTH = 256  # sines and cosines together (DiT; specification, section 11)
TIME_SCALE = 1000.0  # maps t in [0, 1] to the 1000 steps for which the embedding is designed
LONGEST_PERIOD = 10_000.0  # Vaswani et al. 2017


def time_embedding(time: Float[Tensor, " B"]) -> Float[Tensor, "B T"]:
    """Return cosines and sines of the time at 128 geometrically spaced frequencies.

    Args:
        time: 0 is data, 1 is noise.
    """
    half = TIME_WIDTH // 2
    rates = torch.exp(-math.log(LONGEST_PERIOD) * torch.arange(half, device=time.device) / half)
    angles = TIME_SCALE * time.float().unsqueeze(-1) * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
