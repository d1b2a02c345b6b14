"""Distances between the predicted and the true surface of a structure: NSD and HD95.

The normalised surface Dice (NSD) is the fraction of both surfaces within a tolerance of the other surface
(Nikolov et al. 2018). The tolerance is the error of a contour that a person would not correct. The surfaces
are MONAI's sub-voxel elements, weighted by their area in mm², so that thick slices do not get more weight
than thin ones.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
from monai.metrics.utils import get_mask_edges
from scipy.ndimage import distance_transform_edt

TOLERANCE_MM = 3.0  # one slice of a usual chest CT
ROUNDING_MM = 1e-3  # so that a slice of 3.0000001 mm is within 3 mm
HD_FRACTION = 0.95  # HD95 leaves out the most distant 5 % of a surface


@dataclass(frozen=True, kw_only=True)
class SurfaceAgreement:
    """Surface agreement of one structure in one scan.

    Attributes:
        nsd: from 0 to 1; 0 for an empty prediction.
        hd95_mm: None for an empty prediction.
    """

    nsd: float
    hd95_mm: float | None


def surface_agreement(
    predicted: np.ndarray,
    truth: np.ndarray,
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float = TOLERANCE_MM,
) -> SurfaceAgreement:
    """Compute NSD and HD95 of a structure.

    95 % of the area of each surface is within HD95 of the other surface.

    Args:
        predicted, truth: masks (X, Y, Z); the background may be cropped. The truth is not empty.
        spacing_mm: voxel spacing along the axes of the masks.
        tolerance_mm: tolerance of NSD.

    Examples:
        >>> mask = np.zeros((8, 8, 8), bool)
        >>> mask[2:6, 2:6, 2:6] = True
        >>> surface_agreement(mask, mask, (1.0, 1.0, 1.0)).nsd
        1.0
    """
    assert truth.any(), "an empty structure has no surface"
    if not predicted.any():
        return SurfaceAgreement(nsd=0.0, hd95_mm=None)
    edge, true_edge, areas, true_areas = map(np.asarray, get_mask_edges(predicted, truth, spacing=spacing_mm))
    surfaces = [
        (_distance_to(true_edge, spacing_mm)[edge], areas[edge]),
        (_distance_to(edge, spacing_mm)[true_edge], true_areas[true_edge]),
    ]
    near = sum(float(area[distance <= tolerance_mm + ROUNDING_MM].sum()) for distance, area in surfaces)
    return SurfaceAgreement(
        nsd=near / sum(float(area.sum()) for _, area in surfaces),
        hd95_mm=max(_within(distance, area) for distance, area in surfaces),
    )


def _distance_to(edge: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Return the distance of every voxel to a surface; a search tree takes minutes for noisy predictions."""
    return cast(np.ndarray, distance_transform_edt(~edge, sampling=spacing_mm))


def _within(distance: np.ndarray, area: np.ndarray) -> float:
    """Return the distance below which 95 % of the area is."""
    order = np.argsort(distance)
    covered = np.cumsum(area[order])
    return float(distance[order][np.searchsorted(covered, HD_FRACTION * covered[-1])])
