"""Overlapping windows over a latent of any size, and the weighted mean of their outputs (C.2).

The network reads latents of one size. Windows of that size overlap along each axis; the last window ends at
the border. Outputs are blended with weights that fall towards the edges of a window, so that no seam is
visible. The caller runs the network on each window.
"""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

Position = tuple[int, int, int]

OVERLAP = 0.5  # C.2: neighbouring windows share half their width


def window_positions(shape: Position, size: Position, overlap: float = OVERLAP) -> list[Position]:
    """Return the first corner of each window; the windows cover the whole shape.

    Args:
        overlap: fraction of a window's width that it shares with the next window, 0 to less than 1.

    Raises:
        ValueError: the shape is smaller than one window.

    Examples:
        >>> window_positions((8, 4, 4), size=(4, 4, 4))
        [(0, 0, 0), (2, 0, 0), (4, 0, 0)]
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"The overlap of windows is a fraction from 0 to less than 1; got {overlap}.")
    if any(length < width for length, width in zip(shape, size, strict=True)):
        raise ValueError(f"A latent of {shape} is smaller than one window of {size}. Pad it first.")
    along_x, along_y, along_z = (
        _starts(length, width, overlap) for length, width in zip(shape, size, strict=True)
    )
    return [(x, y, z) for x in along_x for y in along_y for z in along_z]


def _starts(length: int, width: int, overlap: float) -> list[int]:
    stride = max(1, round(width * (1 - overlap)))
    last = length - width
    return [*range(0, last, stride), last]


def cut_window(
    volume: Shaped[Tensor, "*B X Y Z"], position: Position, size: Position
) -> Shaped[Tensor, "*B x y z"]:
    """Return the window at a position, as a view."""
    x, y, z = (slice(start, start + width) for start, width in zip(position, size, strict=True))
    return volume[..., x, y, z]


def blending_weights(size: Position) -> Float[Tensor, "X Y Z"]:
    """Return the weight of each voxel of a window: a Hann window that is 1 at most and never 0."""
    x, y, z = (torch.sin(math.pi * (torch.arange(width) + 0.5) / width).square() for width in size)
    return x[:, None, None] * y[None, :, None] * z[None, None, :]


class WindowBlend:
    """Accumulates windows and returns their weighted mean.

    Where all windows agree, the blend equals them except for rounding.
    """

    def __init__(
        self, channels: int, shape: Position, size: Position, *, device: torch.device | str = "cpu"
    ) -> None:
        self.size = size
        self._weights = blending_weights(size).to(device)
        self._total = torch.zeros(channels, *shape, device=device)
        self._weight = torch.zeros(shape, device=device)

    def add(self, position: Position, window: Float[Tensor, "C x y z"]) -> "WindowBlend":
        """Add a window at the position from which it was cut."""
        cut_window(self._total, position, self.size).add_(window.float() * self._weights)
        cut_window(self._weight, position, self.size).add_(self._weights)
        return self

    def blended(self) -> Float[Tensor, "C X Y Z"]:
        """Return the weighted mean of all windows added so far.

        Raises:
            ValueError: the windows do not cover every voxel.
        """
        if not bool((self._weight > 0).all()):
            raise ValueError("The windows added so far leave gaps. Add one at each of window_positions.")
        return self._total / self._weight
