"""Fixed three-dimensional sine-cosine position embeddings (M-14).

Each axis gets a third of the width: sines and cosines of the patch index at geometrically spaced
frequencies, as in the original transformer. Positions are computed and never trained, so a network can be
rebuilt on any grid.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

LONGEST_PERIOD = 10_000.0  # Vaswani et al. 2017; MAE keeps it


def sincos_positions(grid: tuple[int, int, int], width: int) -> Float[Tensor, "L D"]:
    """Return the position embedding of each patch of the grid, in raster order.

    Raises:
        ValueError: the width is not a multiple of 6 (sine and cosine of three axes).
    """
    if width % 6:
        raise ValueError(
            f"Positions need a width that is a multiple of 6 (sine and cosine on three axes); got {width}."
        )
    per_axis = width // 6
    frequencies = LONGEST_PERIOD ** -(torch.arange(per_axis, dtype=torch.float64) / per_axis)
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in axes]  # three of (L, D / 6)
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1).float()


def interpolated_positions(
    trained: tuple[int, int, int], grid: tuple[int, int, int], width: int
) -> Float[Tensor, "L D"]:
    """Return the positions of a trained grid, interpolated trilinearly to another grid (Sec. 3.5)."""
    x, y, z = trained
    known = rearrange(sincos_positions(trained, width), "(x y z) d -> 1 d x y z", x=x, y=y, z=z)
    stretched = F.interpolate(known, size=grid, mode="trilinear", align_corners=False)
    return rearrange(stretched, "1 d x y z -> (x y z) d")
