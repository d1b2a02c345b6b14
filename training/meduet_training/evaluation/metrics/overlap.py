"""Dice of each structure on the scan's own grid, and the structures that a scan does not hold.

A Dice of two empty masks would be 1 and would praise whoever finds nothing anywhere, so a structure without a
voxel in the truth has none: what was found of it is said in millilitres.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import find_objects

from meduet_training.evaluation.metrics.masks import dice

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """One structure of one scan.

    Attributes:
        dice: None where the truth has no voxel of it.
        truth_ml, found_ml: its volume, true and found.
    """

    dice: float | None
    truth_ml: float
    found_ml: float


def overlap(found: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, float, float]) -> Overlap:
    """How much of a structure was found.

    Args:
        found, truth: masks (X, Y, Z) of all its voxels; what surrounds them may have been cut away.
    """
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    return Overlap(
        dice=dice(found, truth) if truth.any() else None,
        truth_ml=int(truth.sum()) * voxel_ml,
        found_ml=int(found.sum()) * voxel_ml,
    )


def class_masks(
    found: np.ndarray, truth: np.ndarray, num_classes: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The two masks of each class after the background, cut to the box that holds both.

    Args:
        found, truth: class numbers (X, Y, Z), 0 the background; numbers beyond the classes are nobody's.
    """
    assert found.shape == truth.shape, "both are on the scan's grid"
    boxes = zip(find_objects(found, num_classes - 1), find_objects(truth, num_classes - 1), strict=True)
    for number, (one, other) in enumerate(boxes, start=1):
        box = _around(one, other)
        yield found[box] == number, truth[box] == number


def _around(one: Box | None, other: Box | None) -> Box:
    """The smallest box with both in it; an empty one where there is neither."""
    if one is None or other is None:
        return one or other or (slice(0), slice(0), slice(0))
    x, y, z = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return x, y, z
