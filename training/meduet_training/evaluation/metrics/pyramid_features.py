"""Features of images that need no trained network: the extractor when MedicalNet's weights are not at hand.

A pyramid of halved resolutions. Of an image: how often which intensity occurs (square roots of shares), and
the mean of each of 3 x 3 (x 3) parts. Of each level: the mean size of the change along each axis and its
spread; and the same once more of these changes, level by level, as a scattering transform of two orders does.
Nothing is learned or drawn, so the same image gives the same numbers everywhere; a distance in them is not
comparable with one in another extractor's features, and every output says which one it was.
"""

import hashlib
import json
from itertools import combinations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

VERSION = 1
BINS = 16  # of intensity, in profile units from 0 to 1
PARTS = 3  # along each axis
LEVELS = 4  # at the voxels' size, 2, 4 and 8 times that
SMALLEST_SIDE = 2**LEVELS
FLOOR, SCALE = 1e-4, 0.25  # log-energies run over several units where shares and means run over one
NAME = f"pyramid {VERSION}"
SHA256 = hashlib.sha256(
    json.dumps([NAME, BINS, PARTS, LEVELS, FLOOR, SCALE]).encode()
).hexdigest()  # of all that decides a feature beside this file's text


def pyramid_features(image: Float[Tensor, "*S"]) -> Float[Tensor, " F"]:
    """Features of a volume (X, Y, Z) or a slice (X, Y) of values from 0 to 1.

    Raises:
        ValueError: a side is shorter than 16.
    """
    if min(image.shape) < SMALLEST_SIDE:
        raise ValueError(
            f"The pyramid needs {SMALLEST_SIDE} voxels along each axis; got {tuple(image.shape)}."
        )
    levels = _levels(image.float().clamp(0, 1), LEVELS)
    slopes = [_slopes(level) for level in levels]
    first = [_log(steps.mean()) for level in slopes for steps in level]
    sizes = [torch.stack(level).square().sum(0).sqrt() for level in slopes]
    spread = [_log(size.std()) for size in sizes]
    second = [
        _log(
            torch.stack(
                [steps.mean() for steps in _slopes(_levels(sizes[fine], coarse - fine + 1)[-1])]
            ).mean()
        )
        for fine, coarse in combinations(range(LEVELS), 2)
    ]
    return torch.cat([_shares(levels[0]), _parts(levels[0]), torch.stack([*first, *spread, *second])])


def _levels(image: Tensor, count: int) -> list[Tensor]:
    """The image and its halved resolutions."""
    pool = F.avg_pool3d if image.ndim == 3 else F.avg_pool2d
    levels = [image]
    for _ in range(count - 1):
        levels.append(pool(levels[-1][None, None], 2)[0, 0])
    return levels


def _slopes(image: Tensor) -> list[Tensor]:
    """Sizes of the change to the next neighbour, along each axis; 0 at the end, which has none."""
    return [image.diff(dim=axis, append=image.narrow(axis, -1, 1)).abs() for axis in range(image.ndim)]


def _shares(image: Tensor) -> Float[Tensor, " 16"]:
    """Square roots of the shares of the bins: rare intensities count as much as common ones."""
    return (torch.histc(image, BINS, 0.0, 1.0) / image.numel()).sqrt()


def _parts(image: Tensor) -> Float[Tensor, " P"]:
    """Mean of each part: where in the image what is."""
    pool = F.adaptive_avg_pool3d if image.ndim == 3 else F.adaptive_avg_pool2d
    return pool(image[None, None], PARTS).flatten()


def _log(energy: Tensor) -> Tensor:
    return SCALE * (energy + FLOOR).log()
