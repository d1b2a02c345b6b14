"""Where a scan's texture is measured, and moved, on its own grid (SPEC section 8).

`core/texture.py` knows tensors; here is what it needs of a scan: the tissue that looks alike in all scans,
the unit in which remainders compare, and the axis along which slices were stacked.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import binary_erosion

from napari_meduet.core.texture import (
    BandEnergies,
    band_energies,
    band_gains,
    slice_axis,
    texture_correction,
)
from napari_meduet.pipelines.encoding import PreparedScan
from napari_meduet.volumes.intensity import body_mask

SOFT_TISSUE_HU = (0.0, 120.0)  # muscle, blood and solid organs: alike in all patients, and flat
EROSION_MM = 2.0  # keeps organ borders, which are no texture, out of the measurement


def texture_unit(scan: PreparedScan) -> float:
    """The scan's unit in which texture is measured: 1 HU, or the width of the profile of an MR scan."""
    knots = scan.profile.knots
    return 1.0 if scan.volume.modality == "CT" else float(knots[-1][0] - knots[0][0])


def texture_tissue(scan: PreparedScan, restored: np.ndarray) -> np.ndarray:
    """Where texture is compared: CT between 0 and 120 HU, MR the foreground, both away from their borders.

    Args:
        restored: the scan through the model on its own grid: without noise, so that noise does not choose.
    """
    if scan.volume.modality == "CT":
        low, high = SOFT_TISSUE_HU
        inside = (restored >= low) & (restored <= high)
    else:
        inside = body_mask(restored, "MR")
    pixel_mm, axis = _in_plane(scan)
    width = [1 if k == axis else 2 * round(EROSION_MM / pixel_mm) + 1 for k in range(3)]
    for k, voxels in enumerate(width):  # a box is eroded one axis at a time
        shape = [voxels if k == other else 1 for other in range(3)]
        inside = binary_erosion(inside, np.ones(shape, bool)) if voxels > 1 else inside
    return inside


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
) -> np.ndarray:
    """What to add to the scan so that its texture becomes the other's, in the scan's unit."""
    pixel_mm, axis = _in_plane(scan)
    slices = torch.from_numpy(remainder)
    gains = band_gains(slices, torch.from_numpy(tissue), pixel_mm, axis, own, other, strength)
    correction = texture_correction(slices, gains, pixel_mm, axis).numpy()
    correction *= np.float32(texture_unit(scan))
    return correction


def mean_energies(scans: Sequence[BandEnergies]) -> BandEnergies:
    """Energies that several scans share: the geometric mean of each band, because gains are ratios."""

    def mean(band: tuple[float | None, ...]) -> float | None:
        known = [deviation for deviation in band if deviation]
        return float(np.exp(np.mean(np.log(known)))) if known else None

    bands = zip(*(scan.deviations for scan in scans), strict=True)
    return BandEnergies(tuple(mean(band) for band in bands))


def _in_plane(scan: PreparedScan) -> tuple[float, int]:
    """Pixel spacing in mm, and the axis along which slices are stacked."""
    axis = slice_axis(torch.from_numpy(scan.volume.affine))
    pixels = [spacing for k, spacing in enumerate(scan.volume.spacing_mm) if k != axis]
    return float(np.sqrt(pixels[0] * pixels[1])), axis
