"""The wavelet tokenizer: a transform that loses nothing, and networks that look no further than they say."""

import pytest
import torch

from napari_meduet.tokenizers.wavelet import WaveletConfig, WaveletTokenizer, haar_matrix

ENCODER_REACH, DECODER_REACH = 1, 2


@pytest.fixture(scope="module")
def tokenizer() -> WaveletTokenizer:
    """Small, and with every block awake: they start as the identity."""
    torch.manual_seed(0)
    config = WaveletConfig(width=8, encoder_blocks=ENCODER_REACH, decoder_blocks=DECODER_REACH)
    tokenizer = WaveletTokenizer(config).eval()
    for block in (*tokenizer.encoder, *tokenizer.decoder):
        torch.nn.init.normal_(block.proj.weight)
    return tokenizer


def test_the_haar_transform_is_orthonormal():
    haar = haar_matrix()
    torch.testing.assert_close(haar @ haar.T, torch.eye(64))


def test_the_first_coefficient_is_eight_times_the_mean():
    cube = torch.arange(64.0)  # mean 31.5
    assert haar_matrix()[0] @ cube == pytest.approx(252.0)


def test_a_step_along_z_is_one_coarse_detail():
    cube = torch.zeros(4, 4, 4)
    cube[:, :, :2] = 1.0  # half of 64 voxels, each times 1/8
    coefficients = haar_matrix() @ cube.flatten()
    assert coefficients[:2].tolist() == pytest.approx([4.0, 4.0])
    assert coefficients[2:].abs().max() < 1e-6


def test_a_difference_between_neighbours_is_one_fine_detail_of_its_corner():
    cube = torch.zeros(4, 4, 4)
    cube[:2, :2, 0], cube[:2, :2, 1] = 1.0, -1.0  # 8 voxels, each times (1 / sqrt(2))^3
    coefficients = haar_matrix() @ cube.flatten()
    assert coefficients[:8].abs().max() < 1e-6
    assert coefficients.abs().max() == pytest.approx(8 / 2**1.5)
    assert (coefficients.abs() > 1e-6).sum() == 1


def test_with_64_channels_nothing_is_lost():
    tokenizer = WaveletTokenizer(WaveletConfig(channels=64, width=8, encoder_blocks=1, decoder_blocks=1))
    with torch.no_grad():
        for linear in (tokenizer.linear_code, tokenizer.linear_decode):
            linear.weight.copy_(torch.eye(64))
            linear.bias.zero_()
        for network in (tokenizer.squeeze, tokenizer.coefficients):
            network.weight.zero_()
            network.bias.zero_()
        volume = torch.rand(2, 1, 8, 12, 4)
        torch.testing.assert_close(tokenizer.decode(tokenizer.encode(volume)[0]), volume)


@torch.inference_mode()
def test_a_window_becomes_4_by_24_cubed_and_comes_back(tokenizer):
    mean, log_variance = tokenizer.encode(torch.rand(1, 1, 96, 96, 96))
    assert mean.shape == log_variance.shape == (1, 4, 24, 24, 24)
    assert tokenizer.decode(mean).shape == (1, 1, 96, 96, 96)


@pytest.mark.parametrize("shape", [(8, 8, 10), (8, 7, 8), (2, 8, 8)])
def test_a_side_that_is_no_multiple_of_four_is_refused(tokenizer, shape):
    with pytest.raises(ValueError, match="no multiple of 4"):
        tokenizer.encode(torch.rand(1, 1, *shape))


@torch.inference_mode()
@pytest.mark.parametrize("axis", [2, 3, 4])
def test_a_voxel_decodes_from_its_halo_alone(tokenizer, axis):
    centre, shape = 5, [1, 4, 3, 3, 3]
    shape[axis] = 11
    latent = torch.randn(shape)
    changed = latent.clone()
    changed.select(axis, centre).add_(1.0)
    moved = (tokenizer.decode(changed) - tokenizer.decode(latent)).abs()
    reached = moved.movedim(axis, 0).flatten(1).amax(dim=1).nonzero().flatten() // tokenizer.stride[axis - 2]
    assert (reached.min(), reached.max()) == (centre - DECODER_REACH, centre + DECODER_REACH)
    assert tokenizer.halo == DECODER_REACH


@torch.inference_mode()
def test_a_latent_voxel_is_encoded_from_its_halo_alone(tokenizer):
    volume = torch.rand(1, 1, 44, 4, 4)
    changed = volume.clone()
    changed[:, :, 20:24] += 0.5  # latent voxel 5
    moved = (tokenizer.encode(changed)[0] - tokenizer.encode(volume)[0]).abs().amax(dim=(0, 1, 3, 4))
    reached = moved.nonzero().flatten()
    assert (reached.min(), reached.max()) == (5 - ENCODER_REACH, 5 + ENCODER_REACH)


@pytest.mark.parametrize("field", ["channels", "width", "encoder_blocks", "decoder_blocks"])
def test_sizes_are_positive(field):
    with pytest.raises(ValueError, match=f"{field} of a wavelet tokenizer"):
        WaveletConfig(**{field: 0})
