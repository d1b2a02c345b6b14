"""Taking away what a segmentation scatters: small parts of a structure far from the rest of it."""

from typing import cast

import numpy as np
from scipy import ndimage

TOUCHING = np.ones((3, 3, 3), np.bool_)  # voxels that share a corner are connected


def keep_largest_parts(labels: np.ndarray) -> None:
    """Make everything but the largest connected part of each label background (0), in place.

    For structures that are one piece. Whatever else has the label goes, so nothing of it may come in pairs.
    Of parts of one size the first in memory stays.

    Args:
        labels: (X, Y, Z), not negative.
    """
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        found = labels[box] == label
        parts, count = cast(tuple[np.ndarray, int], ndimage.label(found, structure=TOUCHING))
        if count > 1:
            sizes = np.zeros(count + 1, np.int64)
            for plane in parts:  # counting needs 64 bits a voxel
                sizes += np.bincount(plane.ravel(), minlength=count + 1)
            sizes[0] = 0
            labels[box][found & (parts != sizes.argmax())] = 0
