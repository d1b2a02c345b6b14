"""Body, lung and bone by thresholds, and how well two masks agree: whether a swap left the anatomy alone."""

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_meduet.volumes.intensity import body_mask
from napari_meduet.volumes.volume import Volume

BODY_HU, LUNG_HU, BONE_HU = -300.0, -400.0, 250.0
SMALLEST_SHARE = 0.01  # of the body: gas in a bowel is no lung
SMOOTHING_MM = 1.5


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Twice the overlap over the sum of the sizes; 1 for two empty masks."""
    total = int(one.sum()) + int(other.sum())
    return 2.0 * int((one & other).sum()) / total if total else 1.0


def shown_in(volume: Volume) -> list[str]:
    """Names of the masks of which the volume holds enough to compare."""
    masks = thresholded(volume, smoothed=False)
    return [name for name, mask in masks.items() if mask.sum() >= SMALLEST_SHARE * masks["body"].sum()]


def overlaps(before: Volume, after: Volume, *, smoothed: bool) -> dict[str, float]:
    """Dice of each mask before and after."""
    own, other = thresholded(before, smoothed=smoothed), thresholded(after, smoothed=smoothed)
    return {name: dice(mask, other[name]) for name, mask in own.items()}


def thresholded(volume: Volume, *, smoothed: bool) -> dict[str, np.ndarray]:
    """Masks (X, Y, Z) by name: body, lung and bone of CT; the foreground of MR.

    Args:
        smoothed: by 1.5 mm before the thresholds, so that noise does not choose.
    """
    values = volume.values()
    if smoothed:
        values = gaussian_filter(values, [SMOOTHING_MM / spacing for spacing in volume.spacing_mm])
    inside = body_mask(values, volume.modality)
    if volume.modality == "MR":
        return {"body": inside}
    return {"body": values > BODY_HU, "lung": inside & (values < LUNG_HU), "bone": values > BONE_HU}
