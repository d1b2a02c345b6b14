"""Noise of CT in soft tissue, and how far a swap moves it towards the noise of the style."""

from typing import Any, cast

import numpy as np
import torch
from scipy.ndimage import binary_erosion, uniform_filter

from napari_meduet.core.texture import slice_axis
from napari_meduet.volumes.volume import Volume

TISSUE_HU = (0.0, 120.0)
MIN_NOISE_DIFFERENCE_HU = 5.0  # pairs with a smaller difference are left out


def soft_tissue_noise(volume: Volume) -> float:
    """Return the robust std (1.4826 MAD) of a CT around its 3x3 in-plane mean, in HU.

    It is measured in tissue of 0 to 120 HU, eroded once.
    """
    values = volume.values()
    in_plane = [3, 3, 3]
    in_plane[slice_axis(torch.from_numpy(volume.affine))] = 1
    tissue = np.asarray(binary_erosion((values >= TISSUE_HU[0]) & (values <= TISSUE_HU[1])), bool)
    smooth = uniform_filter(values, cast(Any, in_plane))  # the type stubs allow one size for all axes only
    deviations = (values - smooth)[tissue]
    return 1.4826 * float(np.median(np.abs(deviations - np.median(deviations))))


def moved_fraction(content: float, style: float, result: float) -> float:
    """Return how far the noise of a result moved from that of the content (0) to that of the style (1)."""
    return (result - content) / (style - content)
