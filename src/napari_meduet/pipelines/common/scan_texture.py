"""Where a scan's texture is measured, and moved, on its own grid (specification, section 8).

`core/texture.py` knows tensors; here is what it needs of a scan: the tissue that looks alike in all scans,
the unit in which remainders compare, and the axis along which slices were stacked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy.ndimage import binary_erosion, gaussian_filter
from torch import Tensor

from napari_meduet.core.texture import (
    BandEnergies,
    band_energies,
    band_gains,
    slice_axis,
    texture_correction,
)
from napari_meduet.pipelines.common.encoding import PreparedScan

SOFT_TISSUE_HU = (0.0, 120.0)  # muscle, blood and solid organs: alike in all patients, and flat
SMALLEST_DEVIATION = 1e-6  # a band without any texture has no logarithm
TISSUE_SMOOTHING_VOXELS = 1.0  # of the working grid: takes nine tenths of white noise away


def texture_unit(scan: PreparedScan) -> float:
    """The scan's unit in which texture is measured: 1 HU, or the width of the profile of an MR scan."""
    knots = scan.profile.knots
    return 1.0 if scan.volume.modality == "CT" else float(knots[-1][0] - knots[0][0])


def texture_tissue(scan: PreparedScan) -> np.ndarray:
    """Where texture is compared, on the scan's own grid: CT between 0 and 120 HU, MR the foreground.

    Judged on the smoothed working grid, where noise does not choose, and one voxel away from every border.
    """
    if scan.volume.modality == "CT":
        low, high = SOFT_TISSUE_HU
        smooth = gaussian_filter(scan.profile.decode(scan.units), TISSUE_SMOOTHING_VOXELS)
        inside = (smooth >= low) & (smooth <= high)
    else:
        inside = scan.body
    eroded = binary_erosion(inside, np.ones((3, 3, 3), bool))
    return scan.grid.to_native(eroded.astype(np.float32)) > 0.5


def measured_texture(scan: PreparedScan, remainder: np.ndarray, tissue: np.ndarray) -> BandEnergies:
    """Energies of the bands of a remainder, in the scan's texture unit."""
    return band_energies(
        torch.from_numpy(remainder), torch.from_numpy(tissue), _pixel_mm(scan), slice_axis_of(scan)
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class TextureMove:
    """A scan's texture on its way to another's.

    Attributes:
        gains: of the bands, finest first.
        unit: the scan's unit in which the remainder is measured.
    """

    remainder: Tensor
    own: BandEnergies
    gains: list[float]
    axis: int
    unit: float

    @classmethod
    def towards(
        cls,
        scan: PreparedScan,
        remainder: np.ndarray,
        tissue: np.ndarray,
        own: BandEnergies,
        other: BandEnergies,
        strength: float,
    ) -> Self:
        """The move that makes the energy of each band (other / own) ** strength of what it was."""
        slices, axis = torch.from_numpy(remainder), slice_axis_of(scan)
        gains = band_gains(slices, torch.from_numpy(tissue), axis, own, other, strength)
        return cls(remainder=slices, own=own, gains=gains, axis=axis, unit=texture_unit(scan))

    def in_slab(self, slab: tuple[slice, ...]) -> np.ndarray:
        """What to add to the scan in a slab of whole slices, in the scan's unit."""
        correction = texture_correction(self.remainder[slab], self.gains, self.axis, self.own)
        return (correction * self.unit).numpy()


def mean_energies(scans: Sequence[BandEnergies]) -> BandEnergies:
    """Energies that several scans share: the geometric mean of each band, because gains are ratios.

    A band counts where a scan's pixels can hold it; the finest pixels say which bands the mean holds.
    """
    known = [scan for scan in scans if scan.deviations]
    if not known:
        return scans[0]
    means = []
    for band in range(len(known[0].deviations)):
        holding = [scan for scan in known if scan.holds()[band]] or known
        logarithms = [np.log(max(scan.deviations[band], SMALLEST_DEVIATION)) for scan in holding]
        means.append(float(np.exp(np.mean(logarithms))))
    return BandEnergies(tuple(means), min(scan.pixel_mm for scan in known))


def slice_axis_of(scan: PreparedScan) -> int:
    """The voxel axis along which slices are stacked."""
    return slice_axis(torch.from_numpy(scan.volume.affine))


def _pixel_mm(scan: PreparedScan) -> float:
    """In-plane spacing."""
    axis = slice_axis_of(scan)
    pixels = [spacing for k, spacing in enumerate(scan.volume.spacing_mm) if k != axis]
    return float(np.sqrt(pixels[0] * pixels[1]))
