"""A velocity for latents larger than the generator's grid: overlapping windows, blended (core/sliding_windows.py).

Windows lie on whole tokens, so that each has the content of its own places. Velocities are blended at every
evaluation, not results at the end, so neighbours agree all along the way.
"""

from collections.abc import Sequence
from dataclasses import replace

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from napari_meduet.core.sliding_windows import OVERLAP, Position, WindowBlend, cut_window, window_positions
from napari_meduet.core.synthesis.control import ControlNet
from napari_meduet.core.synthesis.generator import Conditions, Generator
from napari_meduet.core.synthesis.guided import Guidance, GuidedVelocity


class WindowedVelocity:
    """The velocity of a latent of any size at least the generator's; a `Velocity`.

    Args:
        conditions: their places, spatial content and mask, are those of the whole latent.
        grid: tokens of the whole latent along each axis.
        overlap: share of a window's width that it has in common with the next, 0 to less than 1.

    Raises:
        ValueError: the grid is smaller than the generator's.
    """

    def __init__(
        self,
        generator: Generator,
        conditions: Conditions,
        guidance: Guidance,
        times: Sequence[float],
        grid: Position,
        *,
        batched: bool = True,
        overlap: float = OVERLAP,
        control: ControlNet | None = None,
    ) -> None:
        patch, window = generator.config.patch_size, generator.config.grid
        self.shape, self.size = _voxels(grid, patch), _voxels(window, patch)
        corners = window_positions(grid, window, overlap)
        self._positions = [_voxels(corner, patch) for corner in corners]
        places = [_conditions_at(conditions, grid, corner, generator) for corner in corners]
        first = GuidedVelocity(generator, places[0], guidance, times, batched=batched, control=control)
        self._velocities = [first, *(first.elsewhere(each) for each in places[1:])]

    @property
    def num_evaluations(self) -> int:
        """Windows evaluated so far for each row of x."""
        return sum(velocity.num_evaluations for velocity in self._velocities)

    def __call__(self, x: Float[Tensor, "B C X Y Z"], time: float) -> Float[Tensor, "B C X Y Z"]:
        blend = WindowBlend(len(x) * x.shape[1], self.shape, self.size, device=x.device)
        for position, velocity in zip(self._positions, self._velocities, strict=True):
            found = velocity(cut_window(x, position, self.size), time)
            blend.add(position, found.flatten(0, 1))
        return blend.blended().unflatten(0, x.shape[:2]).to(x.dtype)


def _voxels(tokens: Position, patch: int) -> Position:
    x, y, z = tokens
    return x * patch, y * patch, z * patch


def _conditions_at(
    conditions: Conditions, grid: Position, corner: Position, generator: Generator
) -> Conditions:
    """The conditions with the places inside one window."""
    patch, window = generator.config.patch_size, generator.config.grid
    content, mask = conditions.spatial_content, conditions.mask
    if content is not None:
        x, y, z = grid
        whole = rearrange(content, "b (x y z) d -> b d x y z", x=x, y=y, z=z)
        content = rearrange(cut_window(whole, corner, window), "b d x y z -> b (x y z) d")
    if mask is not None:
        mask = cut_window(mask, _voxels(corner, patch), _voxels(window, patch))
    return replace(conditions, spatial_content=content, mask=mask)
