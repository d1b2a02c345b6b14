"""An image classifier for the domain: what a swap is judged by, and nothing that the model learned.

Hand-made features of boxes of the working grid: how often which intensity occurs, how strong fine structure
is in flat tissue (noise and kernel), how steep borders are. A logistic regression learns the domains of the
train split from them. Where a domain is one patient it learns that patient's anatomy too; a swap leaves the
anatomy where it is, so the *change* of its log-odds is a change of look.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Self

import numpy as np
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from napari_meduet.core.sliding_windows import window_positions
from napari_meduet.volumes.intensity import CT_FULL, body_mask, fit_mr_profile
from napari_meduet.volumes.volume import Modality

BOX = 64  # voxels of the working grid
SMALLEST_TISSUE = 1000  # voxels of flat tissue in a box that counts
INTENSITY_BINS = np.linspace(0.0, 1.0, 25)  # profile units
GRADIENT_BINS = np.geomspace(0.002, 0.5, 13)  # profile units per voxel
BAND_SIGMAS = (0.6, 1.0, 1.7, 2.8)  # voxels, in plane; each band lies between two neighbours
SOFT_TISSUE_HU = (0.0, 120.0)
FLATNESS_SIGMA = (
    1.5  # voxels: what counts as tissue is told from a smoothed scan, so that noise does not choose
)


def features(values: np.ndarray, modality: Modality) -> np.ndarray:
    """(N, F), a row for each box with enough tissue.

    Args:
        values: (X, Y, Z) on the working grid, HU or MR signal.
    """
    profile = CT_FULL if modality == "CT" else fit_mr_profile(values)
    units, body = profile.encode(values), body_mask(values, modality)
    if modality == "CT":
        low, high = SOFT_TISSUE_HU
        smooth = gaussian_filter(values, FLATNESS_SIGMA)
        flat = (smooth > low) & (smooth < high)
    else:
        flat = body
    flat = binary_erosion(flat, np.ones((3, 3, 3)))
    steepness = np.sqrt(sum(np.square(step) for step in np.gradient(units)))
    levels = [units, *(gaussian_filter(units, (sigma, sigma, 0.0)) for sigma in BAND_SIGMAS)]
    bands = [fine - coarse for fine, coarse in pairwise(levels)]

    x, y, z = (min(BOX, side) for side in values.shape)
    box = (x, y, z)
    rows = []
    for corner in window_positions(values.shape, box):
        cut = tuple(slice(start, start + side) for start, side in zip(corner, box, strict=True))
        inside, tissue = body[cut], flat[cut]
        if tissue.sum() < SMALLEST_TISSUE:
            continue
        deviations = [1.4826 * np.median(np.abs(band[cut][tissue])) for band in bands]
        rows.append(
            np.concatenate(
                [
                    _shares(units[cut][inside], INTENSITY_BINS),
                    np.log(np.maximum(deviations, 1e-5)),
                    _shares(steepness[cut][inside], GRADIENT_BINS),
                ]
            )
        )
    num_features = len(INTENSITY_BINS) + len(GRADIENT_BINS) - 2 + len(BAND_SIGMAS)
    return np.stack(rows) if rows else np.empty((0, num_features))


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Square roots of the shares of the bins, so that rare bins count as much as common ones."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return np.sqrt(counts / max(len(values), 1))


class DomainClassifier:
    """Tells domains apart by features of images."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    @classmethod
    def fitted(cls, images: Sequence[np.ndarray], domains: Sequence[str]) -> Self:
        """Learn from the features (N, F) of each image and its domain."""
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
        labels = [domain for image, domain in zip(images, domains, strict=True) for _ in image]
        return cls(pipeline.fit(np.concatenate(images), labels))

    def log_odds(self, image: np.ndarray, domain: str) -> float:
        """log(p / (1 - p)) that the image is of the domain, the mean over its boxes."""
        logits = self._logits(image)
        wanted = list(self._pipeline.classes_).index(domain)
        others = np.delete(logits, wanted, axis=1)
        return float((logits[:, wanted] - logsumexp(others, axis=1)).mean())

    def recognised(self, image: np.ndarray) -> str:
        """The domain that the boxes of an image together speak for."""
        logits = self._logits(image)
        joint = (logits - logsumexp(logits, axis=1, keepdims=True)).sum(axis=0)
        return str(self._pipeline.classes_[int(joint.argmax())])

    def _logits(self, image: np.ndarray) -> np.ndarray:
        """(N, domains), also where two domains have one logit between them."""
        scores = self._pipeline.decision_function(image)
        return np.stack([np.zeros_like(scores), scores], axis=1) if scores.ndim == 1 else scores
