"""Image features that need no trained network, used where the weights of MedicalNet are not given.

The features describe a pyramid of halved resolutions: a histogram of the intensities, the mean of each of 3 x
3 (x 3) blocks, the mean gradient along each axis at each level, the std of the gradient at each level, and
the same gradients of these gradient images, as in a scattering transform of second order. Nothing is trained
or random, so an image has the same features on every machine. Distances in these features are not comparable
with distances in the features of another extractor; every output names its extractor.
"""

import hashlib
import json
from itertools import combinations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

VERSION = 1
BINS = 16  # of the normalised intensity, from 0 to 1
BLOCKS = 3  # along each axis
LEVELS = 4  # voxels of 1, 2, 4 and 8 times the original size
SMALLEST_SIDE = 2**LEVELS
FLOOR, SCALE = 1e-4, 0.25  # logarithms vary over several units, fractions and means over one
NAME = f"pyramid {VERSION}"
SHA256 = hashlib.sha256(
    json.dumps([NAME, BINS, BLOCKS, LEVELS, FLOOR, SCALE]).encode()
).hexdigest()  # of all parameters of the features


def pyramid_features(image: Float[Tensor, "*S"]) -> Float[Tensor, " F"]:
    """Return the features of a volume (X, Y, Z) or a slice (X, Y) with values from 0 to 1.

    Raises:
        ValueError: a side is shorter than 16 voxels.

    Examples:
        >>> pyramid_features(torch.rand(32, 32, 32)).ndim
        1
    """
    if min(image.shape) < SMALLEST_SIDE:
        raise ValueError(
            f"The pyramid needs {SMALLEST_SIDE} voxels along each axis; got {tuple(image.shape)}."
        )
    levels = _levels(image.float().clamp(0, 1), LEVELS)
    gradients = [_gradients(level) for level in levels]
    first = [_log(steps.mean()) for level in gradients for steps in level]
    magnitudes = [torch.stack(level).square().sum(0).sqrt() for level in gradients]
    std = [_log(magnitude.std()) for magnitude in magnitudes]
    second = [
        _log(
            torch.stack(
                [steps.mean() for steps in _gradients(_levels(magnitudes[fine], coarse - fine + 1)[-1])]
            ).mean()
        )
        for fine, coarse in combinations(range(LEVELS), 2)
    ]
    return torch.cat([_histogram(levels[0]), _block_means(levels[0]), torch.stack([*first, *std, *second])])


def _levels(image: Tensor, count: int) -> list[Tensor]:
    """Return the image and its halved resolutions."""
    pool = F.avg_pool3d if image.ndim == 3 else F.avg_pool2d
    levels = [image]
    for _ in range(count - 1):
        levels.append(pool(levels[-1][None, None], 2)[0, 0])
    return levels


def _gradients(image: Tensor) -> list[Tensor]:
    """Return the absolute difference to the next voxel along each axis; 0 at the end of an axis."""
    return [image.diff(dim=axis, append=image.narrow(axis, -1, 1)).abs() for axis in range(image.ndim)]


def _histogram(image: Tensor) -> Float[Tensor, " 16"]:
    """Return the square roots of the bin fractions, which give rare intensities more weight."""
    return (torch.histc(image, BINS, 0.0, 1.0) / image.numel()).sqrt()


def _block_means(image: Tensor) -> Float[Tensor, " P"]:
    """Return the mean of each block, which describes the layout of the image."""
    pool = F.adaptive_avg_pool3d if image.ndim == 3 else F.adaptive_avg_pool2d
    return pool(image[None, None], BLOCKS).flatten()


def _log(energy: Tensor) -> Tensor:
    return SCALE * (energy + FLOOR).log()
