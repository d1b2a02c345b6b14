"""How many voxels each label of a layer has, and where it is best seen.

Slice by slice: labels of a large scan are never copied whole, and whoever waits may be told to stop.
"""

from dataclasses import dataclass

import numpy as np

_MANY = 2**16  # numbers up to here are counted in a table, larger ones are sorted


@dataclass(frozen=True)
class LabelPlace:
    """What is known of a label.

    Attributes:
        num_voxels: in the whole layer.
        plane: where along the layer's first axis most of them are.
    """

    num_voxels: int
    plane: int


def label_places(labels: np.ndarray) -> dict[int, LabelPlace]:
    """Every label but 0 in a layer's array (Z Y X), by number."""
    totals: dict[int, int] = {}
    fullest: dict[int, tuple[int, int]] = {}  # voxels in it, plane
    for number, plane in enumerate(labels):
        for label, count in _counts(np.asarray(plane)):
            totals[label] = totals.get(label, 0) + count
            if count > fullest.get(label, (0, 0))[0]:
                fullest[label] = count, number
    return {label: LabelPlace(totals[label], fullest[label][1]) for label in sorted(totals)}


def label_centre(labels: np.ndarray, label: int, plane: int) -> tuple[int, int, int] | None:
    """The voxel (z y x) of a label nearest to the middle of it in a plane; None where it has none there."""
    places = np.argwhere(np.asarray(labels[plane]) == label)
    if len(places) == 0:
        return None
    nearest = np.square(places - places.mean(axis=0)).sum(axis=1).argmin()
    y, x = places[nearest].tolist()
    return plane, y, x


def _counts(plane: np.ndarray) -> list[tuple[int, int]]:
    """Label and number of voxels of each label but 0 in a plane."""
    if plane.min() < 0 or plane.max() >= _MANY:
        labels, counts = np.unique(plane, return_counts=True)
    else:
        table = np.bincount(plane.ravel())
        labels = np.flatnonzero(table)
        counts = table[labels]
    pairs = zip(labels.tolist(), counts.tolist(), strict=True)
    return [(label, count) for label, count in pairs if label != 0]
