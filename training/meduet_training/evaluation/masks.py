"""Body, lung and bone by thresholds, and how well two masks agree: whether a swap left the anatomy alone."""

import numpy as np

from napari_meduet.volumes.intensity import body_mask
from napari_meduet.volumes.volume import Modality

BODY_HU, LUNG_HU, BONE_HU = -300.0, (-950.0, -400.0), 250.0


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Twice the overlap over the sum of the sizes; 1 for two empty masks."""
    total = int(one.sum()) + int(other.sum())
    return 2.0 * int((one & other).sum()) / total if total else 1.0


def thresholded(values: np.ndarray, modality: Modality) -> dict[str, np.ndarray]:
    """Masks (X, Y, Z) by name: body, lung and bone of CT in HU; the foreground of MR."""
    inside = body_mask(values, modality)
    if modality == "MR":
        return {"body": inside}
    low, high = LUNG_HU
    return {
        "body": values > BODY_HU,
        "lung": inside & (values > low) & (values < high),
        "bone": values > BONE_HU,
    }
