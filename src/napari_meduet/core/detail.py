"""Fine detail that follows a change of contrast (ours, docs/departures.md).

The residual decode adds a change that is as smooth as the network's output, and leaves the finer detail of
the scan as it was. Where one MR sequence becomes another, tissues change places in brightness, and detail
that keeps its old sign contradicts its surroundings: a dark sulcus stays dark in a T2 style. Here the detail
is scaled by what the change does to the contrast around it, a local linear fit as in the guided filter
(He et al., "Guided Image Filtering", ECCV 2010). Where nothing changes, the factor is exactly 0.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

RADIUS = 3  # voxels of the working grid: a cube of 10 mm, about what the network's change resolves
SMALLEST_VARIANCE = 0.02**2  # profile units: flatter surroundings have no contrast to follow
SLOPE_BOUNDS = (-2.0, 1.0)  # of the factor: contrast may be inverted, or doubled, and no more


def followed_slope(
    change: Float[Tensor, "X Y Z"], reference: Float[Tensor, "X Y Z"]
) -> Float[Tensor, "X Y Z"]:
    """By what share of itself the detail must change with its surroundings: 0 nothing, -1 gone, -2 inverted.

    Args:
        change: what the swap adds to `reference`, both in profile units on one grid.
    """
    mean_change, mean_reference = _local_mean(change), _local_mean(reference)
    covariance = _local_mean(change * reference) - mean_change * mean_reference
    variance = _local_mean(reference.square()) - mean_reference.square()
    return (covariance / (variance.clamp_min(0.0) + SMALLEST_VARIANCE)).clamp(*SLOPE_BOUNDS)


def _local_mean(volume: Float[Tensor, "X Y Z"]) -> Float[Tensor, "X Y Z"]:
    """Mean over the cube around each voxel, as far as it lies inside."""
    mean = volume[None, None]
    for axis in range(3):
        size, padding = [1, 1, 1], [0, 0, 0]
        size[axis], padding[axis] = 2 * RADIUS + 1, RADIUS
        mean = F.avg_pool3d(mean, size, stride=1, padding=padding, count_include_pad=False)
    return mean[0, 0]
