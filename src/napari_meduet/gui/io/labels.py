"""Whether a file holds a segmentation: whole numbers, few of them, in patches."""

import numpy as np

from napari_meduet.volumes.volume import Volume

MOST_LABELS = 256
_LEAST_PATCHINESS = 0.4  # share of labelled voxels like their neighbour: masks 0.58 to 0.97, images below 0.3
NIFTI_INTENT_LABEL = 1002
_NAMED_SO = ("seg", "label", "mask")


def is_segmentation(volume: Volume, name: str) -> bool:
    """Whether these voxels are labels: the file says so, or they are few and lie in patches."""
    voxels = volume.voxels
    if voxels.dtype.kind not in "iu" or (volume.slope, volume.intercept) != (1.0, 0.0) or voxels.min() < 0:
        return False
    if volume.header is not None and int(volume.header["intent_code"]) == NIFTI_INTENT_LABEL:
        return True
    if voxels.max() > 2**16 or np.count_nonzero(np.bincount(voxels.ravel(order="K"))) > MOST_LABELS:
        return False
    return any(word in name.lower() for word in _NAMED_SO) or _patchiness(voxels) > _LEAST_PATCHINESS


def _patchiness(voxels: np.ndarray) -> float:
    """Share of labelled voxels whose next neighbour is the same, along the axis where it is least."""
    shares = []
    for axis in range(3):
        lines = np.moveaxis(voxels, axis, 0)
        labelled = lines[:-1] > 0
        shares.append(np.mean((lines[:-1] == lines[1:])[labelled]) if labelled.any() else 0.0)
    return float(min(shares))
