"""What every tokenizer promises, asked of every tokenizer in the registry."""

import json
from dataclasses import asdict

import pytest
import torch

from napari_meduet.tokenizers.maisi import MaisiConfig
from napari_meduet.tokenizers.registry import TOKENIZERS, build_tokenizer
from napari_meduet.tokenizers.tiling import decode_tiled, encode_tiled
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.tokenizers.wavelet import WaveletConfig

SMALL = {
    "wavelet": WaveletConfig(width=8, encoder_blocks=1, decoder_blocks=1),
    "maisi": MaisiConfig(num_channels=(8, 8, 8), num_res_blocks=(1, 1, 1), norm_num_groups=4),
}


@pytest.fixture(scope="module", params=sorted(TOKENIZERS))
def tokenizer(request):
    torch.manual_seed(0)
    return build_tokenizer(request.param, asdict(SMALL[request.param])).eval()


def test_every_tokenizer_is_tested():
    assert set(SMALL) == set(TOKENIZERS)


def test_it_says_what_it_is(tokenizer):
    assert isinstance(tokenizer, Tokenizer)
    assert type(tokenizer) is TOKENIZERS[tokenizer.name].network
    assert min(tokenizer.channels, *tokenizer.stride, tokenizer.halo, tokenizer.bytes_per_latent_voxel) > 0


@torch.inference_mode()
def test_shapes_are_those_of_the_protocol(tokenizer):
    shape = [stride * cells for stride, cells in zip(tokenizer.stride, (2, 3, 4), strict=True)]
    mean, log_variance = tokenizer.encode(torch.rand(2, 1, *shape))
    assert mean.shape == log_variance.shape == (2, tokenizer.channels, 2, 3, 4)
    volume = tokenizer.decode(mean)
    assert volume.shape == (2, 1, *shape)
    assert all(tensor.isfinite().all() for tensor in (mean, log_variance, volume))


@torch.inference_mode()
def test_volumes_of_a_batch_do_not_know_each_other(tokenizer):
    volumes = torch.rand(2, 1, *[2 * stride for stride in tokenizer.stride])
    together, alone = tokenizer.encode(volumes)[0], tokenizer.encode(volumes[1:])[0]
    torch.testing.assert_close(together[1:], alone)
    torch.testing.assert_close(tokenizer.decode(together)[1:], tokenizer.decode(alone))


def test_a_side_that_is_no_multiple_of_the_stride_is_refused(tokenizer):
    x, y, z = tokenizer.stride
    sides = [2 * x, 2 * y, 2 * z + 1]
    with pytest.raises(ValueError, match="no multiple of"):
        tokenizer.encode(torch.rand(1, 1, *sides))


@torch.inference_mode()
def test_any_size_passes_through_tiles(tokenizer):
    volume = torch.rand(1, 1, 13, 5, 6)
    latent = encode_tiled(tokenizer, volume)
    assert decode_tiled(tokenizer, latent, shape=(13, 5, 6)).shape == volume.shape


@torch.inference_mode()
def test_a_card_and_weights_bring_it_back(tokenizer):
    words = json.loads(json.dumps({"name": tokenizer.name, "config": asdict(tokenizer.config)}))
    again = build_tokenizer(words["name"], words["config"]).eval()
    again.load_state_dict(tokenizer.state_dict())
    volume = torch.rand(1, 1, *[2 * stride for stride in tokenizer.stride])
    assert torch.equal(again.encode(volume)[0], tokenizer.encode(volume)[0])


def test_what_the_registry_does_not_know_is_refused():
    with pytest.raises(ValueError, match="'fourier' is unknown; this version has wavelet"):
        build_tokenizer("fourier", {})
    with pytest.raises(ValueError, match="does not know one of taps"):
        build_tokenizer("wavelet", {"taps": 3})
