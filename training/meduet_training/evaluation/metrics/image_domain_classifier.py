"""A classifier of the domain of an image, independent of the model, to measure the effect of a swap.

Its features are hand-made and describe boxes of the working grid: a histogram of the intensities, the
strength of fine structure in flat tissue (noise and reconstruction kernel), and a histogram of the gradients.
A logistic regression learns the domains of the train split from them. Where a domain has one patient, it also
learns the anatomy of this patient. A swap does not change the anatomy, so the *change* of the log-odds
measures a change of style.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Self

import numpy as np
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.special import logsumexp
from sklearn.pipeline import Pipeline

from meduet_training.evaluation.metrics.probes import linear_classifier
from napari_meduet.core.sliding_windows import window_positions
from napari_meduet.volumes.intensity import CT_FULL, body_mask, fit_mr_profile
from napari_meduet.volumes.volume import Modality

BOX = 64  # voxels of the working grid
MIN_TISSUE_VOXELS = 1000  # of flat tissue; boxes with less are left out
INTENSITY_BINS = np.linspace(0.0, 1.0, 25)  # normalised intensity
GRADIENT_BINS = np.geomspace(0.002, 0.5, 13)  # normalised intensity per voxel
BAND_SIGMAS = (0.6, 1.0, 1.7, 2.8)  # voxels, in plane; a band is the difference of two neighbouring scales
SOFT_TISSUE_HU = (0.0, 120.0)
FLATNESS_SIGMA = (
    1.5  # voxels; smoothing before the tissue thresholds, so that noise does not change the tissue
)


def image_features(values: np.ndarray, modality: Modality) -> np.ndarray:
    """Return the features (N, F) of an image, one row for each box with enough tissue.

    Args:
        values: (X, Y, Z) on the working grid, HU or MR signal.
    """
    profile = CT_FULL if modality == "CT" else fit_mr_profile(values)
    normalised, body = profile.encode(values), body_mask(values, modality)
    if modality == "CT":
        low, high = SOFT_TISSUE_HU
        smooth = gaussian_filter(values, FLATNESS_SIGMA)
        flat = (smooth > low) & (smooth < high)
    else:
        flat = body
    flat = binary_erosion(flat, np.ones((3, 3, 3)))
    gradients = np.sqrt(sum(np.square(step) for step in np.gradient(normalised)))
    levels = [normalised, *(gaussian_filter(normalised, (sigma, sigma, 0.0)) for sigma in BAND_SIGMAS)]
    bands = [fine - coarse for fine, coarse in pairwise(levels)]

    x, y, z = (min(BOX, side) for side in values.shape)
    box = (x, y, z)
    rows = []
    for corner in window_positions(values.shape, box):
        cut = tuple(slice(start, start + side) for start, side in zip(corner, box, strict=True))
        inside, tissue = body[cut], flat[cut]
        if tissue.sum() < MIN_TISSUE_VOXELS:
            continue
        deviations = [1.4826 * np.median(np.abs(band[cut][tissue])) for band in bands]
        rows.append(
            np.concatenate(
                [
                    _histogram(normalised[cut][inside], INTENSITY_BINS),
                    np.log(np.maximum(deviations, 1e-5)),
                    _histogram(gradients[cut][inside], GRADIENT_BINS),
                ]
            )
        )
    num_features = len(INTENSITY_BINS) + len(GRADIENT_BINS) - 2 + len(BAND_SIGMAS)
    return np.stack(rows) if rows else np.empty((0, num_features))


def _histogram(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the square roots of the bin fractions, which give rare intensities more weight."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return np.sqrt(counts / max(len(values), 1))


class ImageDomainClassifier:
    """A logistic regression from image features to domains."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    @classmethod
    def fit(cls, images: Sequence[np.ndarray], domains: Sequence[str]) -> Self:
        """Fit the classifier to the features (N, F) and the domain of each image."""
        labels = [domain for image, domain in zip(images, domains, strict=True) for _ in image]
        return cls(linear_classifier().fit(np.concatenate(images), labels))

    def log_odds(self, image: np.ndarray, domain: str) -> float:
        """Return the log-odds log(p / (1 - p)) of a domain, averaged over the boxes of an image."""
        logits = self._logits(image)
        column = list(self._pipeline.classes_).index(domain)
        others = np.delete(logits, column, axis=1)
        return float((logits[:, column] - logsumexp(others, axis=1)).mean())

    def predict(self, image: np.ndarray) -> str:
        """Return the most probable domain of an image, over all its boxes."""
        logits = self._logits(image)
        joint = (logits - logsumexp(logits, axis=1, keepdims=True)).sum(axis=0)
        return str(self._pipeline.classes_[int(joint.argmax())])

    def _logits(self, image: np.ndarray) -> np.ndarray:
        """Return logits (N, num_domains); scikit-learn gives one logit for two domains."""
        scores = self._pipeline.decision_function(image)
        return np.stack([np.zeros_like(scores), scores], axis=1) if scores.ndim == 1 else scores
