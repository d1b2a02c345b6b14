"""How far the surface of what was found lies from the true one: NSD and HD95.

The normalised surface Dice is the share of both surfaces that lies within a tolerance of the other (Nikolov
et al. 2018): as far as a contour may be off before somebody would correct it. Surfaces are those of MONAI's
sub-voxel elements, weighed by their area in mm², so that thick slices count no more than thin ones.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
from monai.metrics.utils import get_mask_edges
from scipy.ndimage import distance_transform_edt

TOLERANCE_MM = 3.0  # organs of scans with slices of 3 mm
ROUNDING_MM = 1e-3  # a slice of 3.0000001 mm is one of 3 mm
NEAR_SHARE = 0.95  # HD95 leaves out the twentieth of a surface that is farthest away


@dataclass(frozen=True, kw_only=True)
class SurfaceAgreement:
    """Of one structure of one scan.

    Attributes:
        nsd: from 0 to 1; 0 where nothing was found.
        hd95_mm: None where nothing was found.
    """

    nsd: float
    hd95_mm: float | None


def surface_agreement(
    found: np.ndarray,
    truth: np.ndarray,
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float = TOLERANCE_MM,
) -> SurfaceAgreement:
    """How well two surfaces agree.

    HD95 is the larger of two distances: within each lies 95 % of the area of one surface from the other.

    Args:
        found, truth: masks (X, Y, Z); what surrounds them may have been cut away. The truth is not empty.
        spacing_mm: along the axes of the masks.
    """
    assert truth.any(), "a structure that is not there has no surface"
    if not found.any():
        return SurfaceAgreement(nsd=0.0, hd95_mm=None)
    edge, true_edge, areas, true_areas = map(np.asarray, get_mask_edges(found, truth, spacing=spacing_mm))
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
    """From everywhere: looking up each place in a tree takes minutes where noise was found all over."""
    return cast(np.ndarray, distance_transform_edt(~edge, sampling=spacing_mm))


def _within(distance: np.ndarray, area: np.ndarray) -> float:
    """The distance within which 95 % of an area lies."""
    order = np.argsort(distance)
    covered = np.cumsum(area[order])
    return float(distance[order][np.searchsorted(covered, NEAR_SHARE * covered[-1])])
