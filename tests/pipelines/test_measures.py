"""PSNR and SSIM against numbers from paper, and against scikit-image where it is installed."""

import numpy as np
import pytest

from napari_meduet.pipelines.common.measures import psnr, ssim

EVERYWHERE = np.ones((16, 16, 16), bool)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((16, 16, 16), dtype=np.float32)


def test_a_constant_error_of_a_tenth_is_twenty_decibels():
    assert psnr(np.zeros((16,) * 3), np.full((16,) * 3, 0.1), 1.0, EVERYWHERE) == pytest.approx(20.0)


def test_decibels_do_not_depend_on_the_unit():
    a, b = noise(0), noise(1)
    assert psnr(a, b, 1.0, EVERYWHERE) == pytest.approx(
        psnr(2000 * a, 2000 * b, 2000.0, EVERYWHERE), abs=1e-4
    )
    assert ssim(a, b, 1.0, EVERYWHERE) == pytest.approx(
        ssim(2000 * a, 2000 * b, 2000.0, EVERYWHERE), abs=1e-4
    )


def test_equal_volumes_are_infinitely_alike():
    a = noise(0)
    assert psnr(a, a, 1.0, EVERYWHERE) == np.inf
    assert ssim(a, a, 1.0, EVERYWHERE) == pytest.approx(1.0, abs=1e-6)


def test_only_the_mask_counts():
    a, b = np.zeros((16,) * 3, np.float32), np.zeros((16,) * 3, np.float32)
    b[8:] = 1.0
    mask = np.zeros((16,) * 3, bool)
    mask[:4] = True
    assert psnr(a, b, 1.0, mask) == np.inf
    assert ssim(a, b, 1.0, mask) == pytest.approx(1.0)


def test_structural_similarity_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    a = noise(0)
    b = (0.7 * a + 0.3 * noise(1)).astype(np.float32)
    inner = np.zeros(EVERYWHERE.shape, bool)
    inner[3:-3, 3:-3, 3:-3] = True
    _, local = metrics.structural_similarity(a, b, data_range=1.0, full=True)
    assert ssim(a, b, 1.0, inner) == pytest.approx(float(local[inner].mean()), abs=1e-5)
