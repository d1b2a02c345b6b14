"""The wavelet tokenizer's training: it begins at the best linear code, and goes on from there."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from small import CPU, WAVELET

from meduet_training.data.augmentation.crops import CropSampler
from meduet_training.data.augmentation.intensity import to_units
from meduet_training.data.caches.prepared import WorkingScan
from meduet_training.data.tokenizer_files import load_tokenizer
from meduet_training.runtime.fabric import make_fabric
from meduet_training.tasks.tokenizer.linear_start import start_tokenizer_linearly
from meduet_training.tasks.tokenizer.run import run_tokenizer_training
from meduet_training.tasks.tokenizer.training import TokenizerTraining, log_error, train_tokenizer
from napari_meduet.tokenizers.wavelet import WaveletConfig, WaveletTokenizer
from napari_meduet.volumes.volume import Modality


def cells(modality: Modality, seed: int) -> WorkingScan:
    """Smooth borders between two tissues: more than a linear code can say."""
    inside = gaussian_filter(np.random.default_rng(seed).normal(size=(48, 48, 48)), 3.0) > 0
    if modality == "CT":
        values = np.where(inside, 240, 40).astype(np.int16)
    else:
        values = np.where(inside, 0.7, 0.3).astype(np.float16)
    return WorkingScan(values, np.ones(values.shape, bool), "site", "patient", modality, "place", "0")


@pytest.fixture(scope="module")
def scans():
    return [cells("CT", seed=0), cells("MR", seed=1)]


def psnr(made: torch.Tensor, true: torch.Tensor) -> float:
    return -10 * math.log10(float((made - true).square().mean()))


@torch.inference_mode()
def test_the_untrained_start_is_as_good_as_principal_components():
    torch.manual_seed(0)
    volume = torch.nn.functional.interpolate(
        torch.rand(2, 1, 10, 10, 10), size=(32, 32, 32), mode="trilinear"
    )
    volume += 0.05 * torch.rand_like(volume)
    tokenizer = WaveletTokenizer(WAVELET)
    start_tokenizer_linearly(tokenizer, volume)

    cubes = volume.unfold(2, 4, 4).unfold(3, 4, 4).unfold(4, 4, 4).reshape(-1, 64).double().numpy()
    mean = cubes.mean(axis=0)
    _, _, directions = np.linalg.svd(cubes - mean, full_matrices=False)
    best = mean + (cubes - mean) @ directions[:4].T @ directions[:4]
    expected = -10 * math.log10(float(np.square(best - cubes).mean()))

    latent, log_variance = tokenizer.encode(volume)
    assert abs(psnr(tokenizer.decode(latent), volume) - expected) < 0.1
    torch.testing.assert_close(latent.std(dim=(0, 2, 3, 4)), torch.ones(4), atol=0.01, rtol=0)  # whitened
    assert log_variance.unique().tolist() == [-5.0]


def test_thirty_steps_leave_the_linear_code_behind(scans):
    training = TokenizerTraining(
        network=WaveletConfig(width=16, encoder_blocks=1, decoder_blocks=1),
        steps=30,
        side=16,
        start_crops=12,
        learning_rate=1e-2,
    )
    unseen = {
        scan.modality: to_units(CropSampler([scan], 16, CPU, seed=99).draw(24), scan.modality)[:, None]
        for scan in scans
    }

    @torch.no_grad()
    def error(tokenizer: WaveletTokenizer) -> float:
        return sum(
            float(log_error(tokenizer.decode(tokenizer.encode(crops)[0]), crops, modality, 0.25))
            for modality, crops in unseen.items()
        )

    linear = WaveletTokenizer(training.network)
    start_tokenizer_linearly(linear, torch.cat(list(unseen.values())))
    *_, (last, _, trained) = train_tokenizer(make_fabric("cpu"), scans, training)
    assert last == 29
    assert error(trained) < error(linear) - 0.2  # 1 dB, both modalities together


def test_what_is_written_is_what_was_trained(tmp_path, scans):
    training = TokenizerTraining(network=WAVELET, steps=3, batch=1, side=16, start_crops=4)
    run_tokenizer_training(make_fabric("cpu"), scans, training, tmp_path)
    *_, (_, _, trained) = train_tokenizer(make_fabric("cpu"), scans, training)
    loaded, _ = load_tokenizer(tmp_path)
    for name, weight in trained.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    assert loaded.config == WAVELET


def test_the_error_of_ct_counts_in_hu_by_hand():
    true = torch.full((1, 1, 4, 4, 4), 0.5)  # 37.5 HU
    made = true + 0.07  # 0.7 units are 425 HU, so this is 42.5 HU of 2000
    expected = math.log(0.02125**2 + 0.25 * 0.07**2 + 1e-6)
    assert float(log_error(made, true, "CT", unit_weight=0.25)) == pytest.approx(expected, rel=1e-4)
    assert float(log_error(made, true, "MR", unit_weight=0.25)) == pytest.approx(
        math.log(0.07**2 + 1e-6), rel=1e-4
    )


def test_what_lies_beyond_1000_hu_counts_in_units_alone():
    true, made = torch.full((1, 1, 4, 4, 4), 0.96), torch.full((1, 1, 4, 4, 4), 0.99)
    expected = math.log(0.25 * 0.03**2 + 1e-6)
    assert float(log_error(made, true, "CT", unit_weight=0.25)) == pytest.approx(expected, rel=1e-3)


def test_crops_that_do_not_fold_are_refused():
    with pytest.raises(ValueError, match="multiple of 4 voxels, the stride of the tokenizer; got 18"):
        TokenizerTraining(side=18)
