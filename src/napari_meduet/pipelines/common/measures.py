"""How alike two volumes are: PSNR and SSIM, both inside a mask.

Both need to know the range the values live in; a decibel without its range means nothing. Arrays of one shape
in, one number out.
"""

import numpy as np
from scipy.ndimage import uniform_filter

SSIM_WINDOW = 7  # voxels; Wang et al. 2004 with the uniform window of scikit-image's default


def psnr(truth: np.ndarray, other: np.ndarray, data_range: float, mask: np.ndarray) -> float:
    """Peak signal-to-noise ratio inside the mask, in dB; infinite where the two are equal."""
    squared = np.square(truth[mask].astype(np.float64) - other[mask])
    mean = float(squared.mean()) if squared.size else 0.0
    return float("inf") if mean == 0 else float(10 * np.log10(data_range**2 / mean))


def ssim(truth: np.ndarray, other: np.ndarray, data_range: float, mask: np.ndarray) -> float:
    """Structural similarity, the mean of its local map inside the mask; 1 where the two are equal."""
    x, y = (np.asarray(volume, dtype=np.float32) / np.float32(data_range) for volume in (truth, other))
    mean_x, mean_y = uniform_filter(x, SSIM_WINDOW), uniform_filter(y, SSIM_WINDOW)
    samples = SSIM_WINDOW**3
    unbiased = samples / (samples - 1)
    var_x = unbiased * (uniform_filter(x * x, SSIM_WINDOW) - mean_x**2)
    var_y = unbiased * (uniform_filter(y * y, SSIM_WINDOW) - mean_y**2)
    covariance = unbiased * (uniform_filter(x * y, SSIM_WINDOW) - mean_x * mean_y)
    c1, c2 = 0.01**2, 0.03**2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return float(similarity[mask].mean(dtype=np.float64)) if mask.any() else 1.0
