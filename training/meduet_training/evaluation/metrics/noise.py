"""Noise of CT in soft tissue, and how far a swap moved it from the content's to the style's."""

from typing import Any, cast

import numpy as np
import torch
from scipy.ndimage import binary_erosion, uniform_filter

from napari_meduet.core.texture import slice_axis
from napari_meduet.volumes.volume import Volume

TISSUE_HU = (0.0, 120.0)
CLEARLY_APART_HU = 5.0  # scans whose noises differ by less have nothing to move


def soft_tissue_noise(volume: Volume) -> float:
    """Robust deviation (1.4826 MAD) of a CT from its 3x3 in-plane mean, in HU.

    Measured inside once-eroded tissue of 0-120 HU.
    """
    values = volume.values()
    in_plane = [3, 3, 3]
    in_plane[slice_axis(torch.from_numpy(volume.affine))] = 1
    tissue = np.asarray(binary_erosion((values >= TISSUE_HU[0]) & (values <= TISSUE_HU[1])), bool)
    smooth = uniform_filter(values, cast(Any, in_plane))  # its type stubs know one size for all axes alone
    deviations = (values - smooth)[tissue]
    return 1.4826 * float(np.median(np.abs(deviations - np.median(deviations))))


def moved_share(content: float, style: float, result: float) -> float:
    """How much of the way from the content's to the style's noise the result went: 0 none, 1 all."""
    return (result - content) / (style - content)
