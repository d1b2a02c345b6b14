"""MS-SSIM of volumes, for the similarity of many pairs from few volumes (specification, section 14).

Wang, Simoncelli and Bovik 2003, with a Gaussian window of 11 voxels and sigma 1.5, and as many of the five
scales as fit into the volume; the weights of the used scales sum to 1. A test compares it with MONAI's
function. That one filters each volume again for every pair, with a dense window of 1331 weights, which is too
slow for a thousand pairs.
"""

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # voxels
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
C1, C2 = 0.01**2, 0.03**2  # of the paper, for values from 0 to 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Scales:
    """A volume at every scale, with its local means and variances."""

    values: list[Float[Tensor, "X Y Z"]]
    means: list[Float[Tensor, "x y z"]]
    variances: list[Float[Tensor, "x y z"]]


def num_scales(side: int) -> int:
    """Return the number of scales at which the window fits into a side of `side` voxels.

    Raises:
        ValueError: the side is shorter than the window.
    """
    count = sum(side // 2**scale >= WINDOW for scale in range(len(WEIGHTS)))
    if not count:
        raise ValueError(f"SSIM needs {WINDOW} voxels along each axis; got {side}.")
    return count


def scales_of(volume: Float[Tensor, "X Y Z"]) -> Scales:
    """Compute the scales of a volume with values from 0 to 1."""
    values, means, variances = [], [], []
    level = volume.float()
    for scale in range(num_scales(min(volume.shape))):
        level = F.avg_pool3d(level[None], 2)[0] if scale else level
        mean = _smoothed(level)
        values.append(level)
        means.append(mean)
        variances.append(_smoothed(level.square()) - mean.square())
    return Scales(values=values, means=means, variances=variances)


def ms_ssim(one: Scales, other: Scales) -> float:
    """Return the multi-scale structural similarity: 1 for equal volumes, 0 if a scale is not correlated."""
    count = len(one.values)
    weights = torch.tensor(WEIGHTS[:count], dtype=torch.float64)
    similarity = 1.0
    for scale, weight in enumerate((weights / weights.sum()).tolist()):
        mean_x, mean_y = one.means[scale], other.means[scale]
        covariance = _smoothed(one.values[scale] * other.values[scale]) - mean_x * mean_y
        agreement = (2 * covariance + C2) / (one.variances[scale] + other.variances[scale] + C2)
        if scale == count - 1:
            agreement = agreement * (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
        similarity *= max(float(agreement.mean()), 0.0) ** weight
    return similarity


def _smoothed(volume: Float[Tensor, "X Y Z"]) -> Float[Tensor, "x y z"]:
    """Return the windowed means at positions where the window is inside the volume, axis by axis."""
    x, y, z = (_window_matrix(side) for side in volume.shape)
    volume = (x @ volume.flatten(1)).view(len(x), *volume.shape[1:])
    return y @ (volume @ z.T)


@cache
def _window_matrix(side: int) -> Float[Tensor, "n N"]:
    """Return a matrix whose row k holds the window at position k of an axis."""
    offsets = torch.arange(WINDOW) - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    matrix = torch.zeros(side - WINDOW + 1, side)
    for row in range(len(matrix)):
        matrix[row, row : row + WINDOW] = weights / weights.sum()
    return matrix
