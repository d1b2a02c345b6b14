"""Count the voxels of each label of a layer, and find where a label is best visible.

The functions work plane by plane, so that the labels of a large scan are never copied as a whole.
"""

from dataclasses import dataclass

import numpy as np

_TABLE_SIZE = 2**16  # smaller labels are counted in a table, larger ones by sorting


@dataclass(frozen=True)
class LabelCount:
    """The size and the position of a label.

    Attributes:
        num_voxels: Number of voxels in the whole layer.
        plane: Index along the layer's first axis of the plane with most voxels of the label.
    """

    num_voxels: int
    plane: int


def count_labels(labels: np.ndarray) -> dict[int, LabelCount]:
    """Return a count for every label except 0 in a layer's array, sorted by label."""
    totals: dict[int, int] = {}
    fullest: dict[int, tuple[int, int]] = {}  # number of voxels, plane
    for number, plane in enumerate(labels):
        for label, count in _plane_counts(np.asarray(plane)):
            totals[label] = totals.get(label, 0) + count
            if count > fullest.get(label, (0, 0))[0]:
                fullest[label] = count, number
    return {label: LabelCount(totals[label], fullest[label][1]) for label in sorted(totals)}


def label_centre(labels: np.ndarray, label: int, plane: int) -> tuple[int, int, int] | None:
    """Return the voxel of a label nearest to the label's centroid in a plane; None if there is none."""
    voxels = np.argwhere(np.asarray(labels[plane]) == label)
    if len(voxels) == 0:
        return None
    nearest = np.square(voxels - voxels.mean(axis=0)).sum(axis=1).argmin()
    row, column = voxels[nearest].tolist()
    return plane, row, column


def _plane_counts(plane: np.ndarray) -> list[tuple[int, int]]:
    """Return label and number of voxels for each label except 0 in a plane."""
    if plane.min() < 0 or plane.max() >= _TABLE_SIZE:
        labels, counts = np.unique(plane, return_counts=True)
    else:
        table = np.bincount(plane.ravel())
        labels = np.flatnonzero(table)
        counts = table[labels]
    pairs = zip(labels.tolist(), counts.tolist(), strict=True)
    return [(label, count) for label, count in pairs if label != 0]
