"""Where a scan's texture is measured, and moved, on its own grid (SPEC section 8).

`core/texture.py` knows tensors; here is what it needs of a scan: the tissue that looks alike in all scans,
the unit in which remainders compare, and the axis along which slices were stacked.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import binary_erosion, gaussian_filter

from napari_meduet.core.texture import (
    BandEnergies,
    band_energies,
    band_gains,
    slice_axis,
    texture_correction,
)
from napari_meduet.errors import OnProgress
from napari_meduet.pipelines.encoding import PreparedScan

SOFT_TISSUE_HU = (0.0, 120.0)  # muscle, blood and solid organs: alike in all patients, and flat
SLICES_AT_ONCE = 16  # between two reports of progress, and two chances to cancel
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
    pixel_mm, axis = _in_plane(scan)
    return band_energies(torch.from_numpy(remainder), torch.from_numpy(tissue), pixel_mm, axis)


def moved_texture(
    scan: PreparedScan,
    remainder: np.ndarray,
    tissue: np.ndarray,
    own: BandEnergies,
    other: BandEnergies,
    strength: float,
    on_progress: OnProgress,
) -> np.ndarray:
    """What to add to the scan so that its texture becomes the other's, in the scan's unit."""
    on_progress(0.0, "moving texture")
    _, axis = _in_plane(scan)
    slices = torch.from_numpy(remainder)
    gains = band_gains(slices, torch.from_numpy(tissue), axis, own, other, strength)
    correction = np.empty_like(remainder)
    for first in range(0, remainder.shape[axis], SLICES_AT_ONCE):
        on_progress(first / remainder.shape[axis], "moving texture")
        slab = tuple(slice(first, first + SLICES_AT_ONCE) if k == axis else slice(None) for k in range(3))
        correction[slab] = texture_correction(slices[slab], gains, axis, own).numpy()
    correction *= np.float32(texture_unit(scan))
    return correction


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


def _in_plane(scan: PreparedScan) -> tuple[float, int]:
    """Pixel spacing in mm, and the axis along which slices are stacked."""
    axis = slice_axis(torch.from_numpy(scan.volume.affine))
    pixels = [spacing for k, spacing in enumerate(scan.volume.spacing_mm) if k != axis]
    return float(np.sqrt(pixels[0] * pixels[1])), axis
