"""MS-SSIM of volumes, arranged for many pairs of few volumes: how alike the samples of a set are (specification, section 14).

Wang, Simoncelli and Bovik 2003, with the Gaussian window of 11 voxels, sigma 1.5, and as many of the five
scales as the volume is large enough for, their weights made to sum to 1. It agrees with MONAI's, which a test
compares; of a thousand pairs that one would filter each volume anew in each pair, with a dense window of
1331 weights.
"""

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # voxels
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
C1, C2 = 0.01**2, 0.03**2  # for values from 0 to 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Scales:
    """A volume at every scale, with the local mean and variance that each pair needs."""

    values: list[Float[Tensor, "X Y Z"]]
    means: list[Float[Tensor, "x y z"]]
    variances: list[Float[Tensor, "x y z"]]


def num_scales(side: int) -> int:
    """Scales at which a side of so many voxels still holds the window.

    Raises:
        ValueError: it holds none.
    """
    count = sum(side // 2**scale >= WINDOW for scale in range(len(WEIGHTS)))
    if not count:
        raise ValueError(f"SSIM needs {WINDOW} voxels along each axis; got {side}.")
    return count


def scales_of(volume: Float[Tensor, "X Y Z"]) -> Scales:
    """A volume of values from 0 to 1, ready to be compared."""
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
    """Multi-scale structural similarity: 1 for equal volumes, 0 where some scale does not correlate."""
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
    """Means under the window, where it lies wholly inside; one axis after the other, as matrix products."""
    x, y, z = (_window_matrix(side) for side in volume.shape)
    volume = (x @ volume.flatten(1)).view(len(x), *volume.shape[1:])
    return y @ (volume @ z.T)


@cache
def _window_matrix(side: int) -> Float[Tensor, "n N"]:
    """Rows that each hold the window at one place of an axis."""
    places = torch.arange(WINDOW) - WINDOW // 2
    weights = torch.exp(-places.square() / (2 * SIGMA**2))
    matrix = torch.zeros(side - WINDOW + 1, side)
    for row in range(len(matrix)):
        matrix[row, row : row + WINDOW] = weights / weights.sum()
    return matrix
