"""Threshold masks of body, lung and bone, and their Dice: a measure of changes of the anatomy."""

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_meduet.volumes.intensity import body_mask
from napari_meduet.volumes.volume import Volume

BODY_HU, LUNG_HU, BONE_HU = -300.0, -400.0, 250.0
MIN_BODY_FRACTION = 0.01  # smaller masks are not compared; gas in the bowel is no lung
SMOOTHING_MM = 1.5


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Return twice the overlap over the sum of both sizes; 1 for two empty masks."""
    total = int(one.sum()) + int(other.sum())
    return 2.0 * int((one & other).sum()) / total if total else 1.0


def visible_masks(volume: Volume) -> list[str]:
    """Return the names of the masks that are large enough to compare."""
    masks = threshold_masks(volume, smoothed=False)
    return [name for name, mask in masks.items() if mask.sum() >= MIN_BODY_FRACTION * masks["body"].sum()]


def mask_dice(before: Volume, after: Volume, *, smoothed: bool) -> dict[str, float]:
    """Return the Dice of each mask between two volumes."""
    own, other = threshold_masks(before, smoothed=smoothed), threshold_masks(after, smoothed=smoothed)
    return {name: dice(mask, other[name]) for name, mask in own.items()}


def threshold_masks(volume: Volume, *, smoothed: bool) -> dict[str, np.ndarray]:
    """Return masks (X, Y, Z) by name: body, lung and bone for CT, the foreground for MR.

    Args:
        smoothed: whether to smooth by 1.5 mm before the thresholds, so that noise has less effect.
    """
    values = volume.values()
    if smoothed:
        values = gaussian_filter(values, [SMOOTHING_MM / spacing for spacing in volume.spacing_mm])
    inside = body_mask(values, volume.modality)
    if volume.modality == "MR":
        return {"body": inside}
    return {"body": values > BODY_HU, "lung": inside & (values < LUNG_HU), "bone": values > BONE_HU}
