"""Velocity of latents larger than the generator's grid, from overlapping windows (core/sliding_windows.py).

Windows are aligned with whole tokens, so each window has the spatial content of its own region. Velocities,
not final results, are blended at every evaluation, so neighbouring windows agree throughout sampling.
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
    """The guided velocity of a latent that is at least as large as the generator's grid.

    Args:
        conditions: spatial content and mask cover the whole latent.
        grid: tokens of the whole latent along each axis.
        overlap: fraction of a window's width that it shares with the next window, 0 to less than 1.

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
        cut = [_conditions_at(conditions, grid, corner, generator) for corner in corners]
        first = GuidedVelocity(generator, cut[0], guidance, times, batched=batched, control=control)
        self._velocities = [first, *(first.with_spatial_conditions(each) for each in cut[1:])]

    @property
    def num_evaluations(self) -> int:
        """Number of windows evaluated so far for each row of the latent."""
        return sum(velocity.num_evaluations for velocity in self._velocities)

    def __call__(self, x: Float[Tensor, "B C X Y Z"], time: float) -> Float[Tensor, "B C X Y Z"]:
        blend = WindowBlend(len(x) * x.shape[1], self.shape, self.size, device=x.device)
        for position, velocity in zip(self._positions, self._velocities, strict=True):
            window = velocity(cut_window(x, position, self.size), time)
            blend.add(position, window.flatten(0, 1))
        return blend.blended().unflatten(0, x.shape[:2]).to(x.dtype)


def _voxels(tokens: Position, patch: int) -> Position:
    x, y, z = tokens
    return x * patch, y * patch, z * patch


def _conditions_at(
    conditions: Conditions, grid: Position, corner: Position, generator: Generator
) -> Conditions:
    """Return the conditions with the spatial content and mask of one window."""
    patch, window = generator.config.patch_size, generator.config.grid
    content, mask = conditions.spatial_content, conditions.mask
    if content is not None:
        x, y, z = grid
        whole = rearrange(content, "b (x y z) d -> b d x y z", x=x, y=y, z=z)
        content = rearrange(cut_window(whole, corner, window), "b d x y z -> b (x y z) d")
    if mask is not None:
        mask = cut_window(mask, _voxels(corner, patch), _voxels(window, patch))
    return replace(conditions, spatial_content=content, mask=mask)
