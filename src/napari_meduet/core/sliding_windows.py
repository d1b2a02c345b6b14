"""Windows over a latent of any size, and one latent from what came out of them (C.2).

The network reads latents of one size. Windows of that size overlap along each axis, the last one lying
flush with the end; where outputs overlap they are blended with weights that fall towards a window's edges,
so that no seam shows. What the network makes of a window is the caller's business.
"""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

Position = tuple[int, int, int]

OVERLAP = 0.5  # C.2: neighbouring windows share half their width


def window_positions(shape: Position, size: Position, overlap: float = OVERLAP) -> list[Position]:
    """First corner of each window, so that the windows cover the whole shape.

    Args:
        overlap: share of a window's width that it has in common with the next one, 0 to less than 1.

    Raises:
        ValueError: where the shape is smaller than one window; pad it first.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"The overlap of windows is a share from 0 to less than 1; got {overlap}.")
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
    """The window that begins at the position, as a view."""
    x, y, z = (slice(start, start + width) for start, width in zip(position, size, strict=True))
    return volume[..., x, y, z]


def blending_weights(size: Position) -> Float[Tensor, "X Y Z"]:
    """Weight of each place in a window: 1 at most, falling like a Hann window to its edges, nowhere 0."""
    x, y, z = (torch.sin(math.pi * (torch.arange(width) + 0.5) / width).square() for width in size)
    return x[:, None, None] * y[None, :, None] * z[None, None, :]


class WindowBlend:
    """Adds up windows and returns their weighted mean.

    What all windows agree on comes back unchanged but for rounding; windows of a smooth field give that
    field.
    """

    def __init__(
        self, channels: int, shape: Position, size: Position, *, device: torch.device | str = "cpu"
    ) -> None:
        self.size = size
        self._weights = blending_weights(size).to(device)
        self._total = torch.zeros(channels, *shape, device=device)
        self._weight = torch.zeros(shape, device=device)

    def add(self, position: Position, window: Float[Tensor, "C x y z"]) -> "WindowBlend":
        """Count a window in, at the position that it was cut from."""
        cut_window(self._total, position, self.size).add_(window.float() * self._weights)
        cut_window(self._weight, position, self.size).add_(self._weights)
        return self

    def blended(self) -> Float[Tensor, "C X Y Z"]:
        """The weighted mean of the windows added so far.

        Raises:
            ValueError: where no window lies; a gap would otherwise pass for a value.
        """
        if not bool((self._weight > 0).all()):
            raise ValueError("The windows added so far leave gaps. Add one at each of window_positions.")
        return self._total / self._weight
