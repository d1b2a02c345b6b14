"""Fréchet distance (FID) and maximum mean discrepancy of two sets of features (specification, section 14).

Both suit few samples of many features, as volumes give. MONAI's functions do not: its FID takes the square
root of a (D, D) product, which is singular for fewer samples than features, and its MMD has a linear kernel,
so it compares only means.
"""

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist


def frechet_distance(one: Float[np.ndarray, "N D"], other: Float[np.ndarray, "M D"]) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2), with the means m and covariances C of both sets.

    The trace of the square root is the sum of the singular values of X1 X2^T / sqrt((N - 1)(M - 1)), where X
    is centred. This is exact for every rank, so no value is added to the diagonals. With D or fewer samples
    the covariances are singular, and the distance between two sets of one distribution is far from 0. Compare
    only distances of equal N and M.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError(f"A covariance needs two samples; got {len(one)} and {len(other)}.")
    mean_one, mean_other = one.mean(axis=0), other.mean(axis=0)
    root_one, root_other = _covariance_root(one - mean_one), _covariance_root(other - mean_other)
    shared = np.linalg.svd(root_one @ root_other.T, compute_uv=False).sum()
    covariances = np.square(root_one).sum() + np.square(root_other).sum() - 2 * shared
    return float(np.square(mean_one - mean_other).sum() + max(covariances, 0.0))


def _covariance_root(centred: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "R D"]:
    """Return a matrix R with at most min(N, D) rows, where R^T R is the covariance."""
    scaled = centred.astype(np.float64) / np.sqrt(len(centred) - 1)
    return np.asarray(np.linalg.qr(scaled, mode="r")) if scaled.shape[0] > scaled.shape[1] else scaled


def median_distance(features: Float[np.ndarray, "N D"]) -> float:
    """Return the median distance of two different samples, the usual length of an RBF kernel."""
    distances = cdist(features, features)
    return float(np.median(distances[np.triu_indices(len(features), k=1)]))


def rbf_kernel(
    one: Float[np.ndarray, "N D"], other: Float[np.ndarray, "M D"], length: float
) -> Float[np.ndarray, "N M"]:
    """Return exp(-|x - y|^2 / (2 length^2)) of every pair of samples."""
    return np.exp(cdist(one, other, "sqeuclidean") / (-2.0 * length**2))


def unbiased_mmd(
    within_one: Float[np.ndarray, "N N"],
    within_other: Float[np.ndarray, "M M"],
    between: Float[np.ndarray, "N M"],
    counts_one: Float[np.ndarray, " N"] | None = None,
    counts_other: Float[np.ndarray, " M"] | None = None,
) -> float:
    """Return the squared maximum mean discrepancy from the kernels of all pairs (Gretton et al. 2012, Eq. 3).

    Its mean is 0 for sets of one distribution, so single values can be negative.

    Args:
        counts_one, counts_other: number of times that each sample was drawn. A sample is never compared with
            its own copies, which would reduce the variety of the set. None: each sample was drawn once.
    """
    ones = np.ones(len(within_one)) if counts_one is None else counts_one
    others = np.ones(len(within_other)) if counts_other is None else counts_other
    cross = ones @ between @ others / (ones.sum() * others.sum())
    return float(_mean_of_pairs(within_one, ones) + _mean_of_pairs(within_other, others) - 2 * cross)


def _mean_of_pairs(kernel: Float[np.ndarray, "N N"], counts: Float[np.ndarray, " N"]) -> float:
    weights = np.outer(counts, counts)
    np.fill_diagonal(weights, 0.0)
    return float((weights * kernel).sum() / weights.sum())
