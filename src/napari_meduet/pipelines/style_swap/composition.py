"""Add a decoded change to its scan, at the resolution of the scan (specification, section 8).

    out = x + up(decode(z_ij) - decode(z_ii)) + detail + texture

inside the intensity profile. Everything happens in slabs of slices, so that a scan of any size costs a few
copies of itself, and a job can be cancelled between slabs. Where the change is exactly 0 and no texture
moves, out is x.
"""

from collections.abc import Iterator

import numpy as np
import torch

from napari_meduet.core.detail import followed_slope
from napari_meduet.errors import InputError, OnProgress
from napari_meduet.pipelines.common.encoding import PreparedScan
from napari_meduet.pipelines.common.scan_texture import TextureMove, slice_axis_of

SLICES_AT_ONCE = 8

Slab = tuple[slice, ...]


def composed(
    scan: PreparedScan,
    reference: np.ndarray,
    moved: np.ndarray,
    texture: TextureMove | None,
    on_progress: OnProgress,
) -> np.ndarray:
    """The scan with a change of its decoded self, and of its texture, where its profile can hold them.

    Args:
        reference, moved: decode(z_ii) and decode(z_ij), on the working grid in profile units.
    """
    on_progress(0.0, "composing the result")
    profile, grid = scan.profile, scan.grid
    change = grid.to_native(moved - reference)
    follow = scan.volume.modality == "MR"  # CT has one unit: its tissues do not change places
    if follow:
        slope = followed_slope(torch.from_numpy(moved - reference), torch.from_numpy(reference))
        native_slope, native_reference = grid.to_native(slope.numpy()), grid.to_native(reference)
    (low, _), (high, _) = profile.knots[0], profile.knots[-1]

    values = np.empty_like(scan.values)
    for done, slab in _slabs(scan):
        on_progress(done, "composing the result")
        own = scan.values[slab]
        units = profile.encode(own)
        if follow:
            units += native_slope[slab] * (units - native_reference[slab])
        units += change[slab]
        new = profile.decode(units)
        np.copyto(new, own, where=change[slab] == 0)
        if texture is not None:
            new += texture.in_slab(slab)
        np.clip(new, np.float32(low), np.float32(high), out=new)
        np.copyto(new, own, where=~profile.inside(own))
        if not np.isfinite(new).all():
            raise InputError(
                "While composing the result, values became infinite; nothing was kept. "
                "Check the scan's values, or leave texture off."
            )
        values[slab] = new
    return values


def _slabs(scan: PreparedScan) -> Iterator[tuple[float, Slab]]:
    """Runs of slices, each with the share of the scan that lies before it."""
    axis = slice_axis_of(scan)
    count = scan.values.shape[axis]
    for first in range(0, count, SLICES_AT_ONCE):
        run = slice(first, first + SLICES_AT_ONCE)
        yield first / count, tuple(run if k == axis else slice(None) for k in range(3))
