"""How much of a scan each label fills, on the scan's own grid."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MM3_PER_ML = 1000.0


@dataclass(frozen=True)
class LabelVolume:
    """One label: how many voxels it has, and what they fill."""

    num_voxels: int
    volume_ml: float


def voxel_volume_ml(affine: np.ndarray) -> float:
    """What one voxel fills, whatever its shape: the determinant of its edges."""
    return abs(float(np.linalg.det(affine[:3, :3]))) / MM3_PER_ML


def label_volumes(labels: np.ndarray, affine: np.ndarray, names: Mapping[int, str]) -> dict[int, LabelVolume]:
    """Voxels and millilitres of every label that has a name; of one that is nowhere, 0.

    Args:
        labels: (X, Y, Z), not negative.
        affine: voxel index -> RAS mm.
    """
    counts = np.zeros(max(names, default=0) + 1, np.int64)
    for plane in labels.T:  # a plane at a time: counting needs 64 bits a voxel
        found = np.bincount(plane.ravel(), minlength=counts.size)
        counts += found[: counts.size]
    per_voxel = voxel_volume_ml(affine)
    return {
        label: LabelVolume(num_voxels=int(counts[label]), volume_ml=float(counts[label] * per_voxel))
        for label in names
    }
