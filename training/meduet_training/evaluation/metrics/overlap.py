"""Dice and volumes of structures on the grid of the scan.

The Dice of two empty masks is 1, which would reward a method that finds nothing. A structure without a voxel
in the truth therefore has no Dice; its predicted volume is reported in millilitres instead.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import find_objects

from meduet_training.evaluation.metrics.masks import dice

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Overlap of one structure in one scan.

    Attributes:
        dice: None where the truth has no voxel of the structure.
        truth_ml, predicted_ml: true and predicted volume.
    """

    dice: float | None
    truth_ml: float
    predicted_ml: float


def overlap(predicted: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, float, float]) -> Overlap:
    """Compute the overlap of one structure.

    Args:
        predicted, truth: masks (X, Y, Z) with all voxels of the structure; the background may be cropped.
    """
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    return Overlap(
        dice=dice(predicted, truth) if truth.any() else None,
        truth_ml=int(truth.sum()) * voxel_ml,
        predicted_ml=int(predicted.sum()) * voxel_ml,
    )


def class_masks(
    predicted: np.ndarray, truth: np.ndarray, num_classes: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the predicted and the true mask of each class but the background, cropped to the box around both.

    Args:
        predicted, truth: class numbers (X, Y, Z), 0 for the background; larger numbers than the classes are
            ignored.
    """
    assert predicted.shape == truth.shape, "both are on the grid of the scan"
    boxes = zip(find_objects(predicted, num_classes - 1), find_objects(truth, num_classes - 1), strict=True)
    for number, (one, other) in enumerate(boxes, start=1):
        box = _union(one, other)
        yield predicted[box] == number, truth[box] == number


def _union(one: Box | None, other: Box | None) -> Box:
    """Return the smallest box around both boxes; an empty box if both are None."""
    if one is None or other is None:
        return one or other or (slice(0), slice(0), slice(0))
    x, y, z = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return x, y, z
