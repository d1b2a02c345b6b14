"""Tiles: any volume within a budget, and no seam where they meet."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from napari_meduet.tokenizers.tiling import BLEND, decode_tiled, encode_tiled
from napari_meduet.tokenizers.wavelet import WaveletConfig, WaveletTokenizer

SIDE = 8  # latent voxels along a tile, the most that the small budget holds


def small_budget(tokenizer) -> int:
    return int((SIDE + 0.5) ** 3 * tokenizer.bytes_per_latent_voxel)


def wavelet() -> WaveletTokenizer:
    torch.manual_seed(0)
    tokenizer = WaveletTokenizer(WaveletConfig(width=8, encoder_blocks=1, decoder_blocks=2)).eval()
    for block in (*tokenizer.encoder, *tokenizer.decoder):
        nn.init.normal_(block.proj.weight, std=0.3)
    return tokenizer


class Normalising(nn.Module):
    """A tokenizer as bad as can be: each tile loses its own mean, as a spatial norm would take it."""

    name, channels, stride, halo, bytes_per_latent_voxel = "normalising", 1, (4, 4, 4), 1, 1000

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.largest_side = 0

    def encode(self, volume):
        return F.avg_pool3d(volume, 4), torch.zeros_like(volume[..., ::4, ::4, ::4])

    def decode(self, latent):
        self.largest_side = max(self.largest_side, *latent.shape[2:])
        latent = latent - latent.mean(dim=(2, 3, 4), keepdim=True)
        return F.interpolate(latent, scale_factor=4, mode="nearest")


@settings(max_examples=12)
@given(shape=st.tuples(*[st.integers(1, 45)] * 3), seed=st.integers(0, 99))
@torch.inference_mode()
def test_tiled_equals_whole_for_any_size(shape, seed):
    tokenizer = wavelet()
    volume = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(seed))
    missing = [-side % 4 for side in shape]
    padded = F.pad(volume, (0, missing[2], 0, missing[1], 0, missing[0]), mode="replicate")
    latent = tokenizer.encode(padded)[0]
    budget = small_budget(tokenizer)
    tiled = encode_tiled(tokenizer, volume, memory_budget_bytes=budget)
    assert (tiled - latent).abs().max() <= 1e-5
    whole = tokenizer.decode(latent)[(..., *(slice(side) for side in shape))]
    back = decode_tiled(tokenizer, latent, shape=shape, memory_budget_bytes=budget)
    assert back.shape == whole.shape
    assert (back - whole).abs().max() <= 1e-5


@torch.inference_mode()
def test_tiles_that_disagree_fade_into_each_other():
    """On a ramp of 1 a latent voxel, tiles s apart disagree by s; a hard cut would show it all."""
    tokenizer = Normalising()
    latent = torch.arange(30.0).view(1, 1, 30, 1, 1)
    tiled = decode_tiled(tokenizer, latent, memory_budget_bytes=small_budget(tokenizer)).flatten()
    whole = tokenizer.decode(latent).flatten()
    seam = (tiled.diff() - whole.diff()).abs().max()
    tiles_apart = SIDE - 2 * tokenizer.halo - BLEND
    assert tiles_apart == 4
    assert 0.1 < seam <= tiles_apart / (BLEND * tokenizer.stride[0]) + 1e-5


@torch.inference_mode()
def test_no_tile_is_larger_than_the_budget_holds():
    tokenizer = Normalising()
    decode_tiled(tokenizer, torch.rand(1, 1, 29, 17, 11), memory_budget_bytes=small_budget(tokenizer))
    assert tokenizer.largest_side == SIDE


@torch.inference_mode()
@pytest.mark.parametrize("shape", [(5, 6, 7), (45, 13, 4)])
def test_progress_rises_to_one(shape):
    tokenizer, heard = wavelet(), []
    budget = small_budget(tokenizer)
    latent = encode_tiled(
        tokenizer, torch.rand(1, 1, *shape), memory_budget_bytes=budget, on_progress=heard.append
    )
    assert heard == sorted(heard)
    assert heard[-1] == 1.0
    heard.clear()
    decode_tiled(tokenizer, latent, memory_budget_bytes=budget, on_progress=heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == 1.0


@torch.inference_mode()
def test_padding_repeats_the_border_and_is_cut_off_again():
    tokenizer = Normalising()
    volume = torch.zeros(1, 1, 5, 4, 4)
    volume[:, :, 4] = 8.0
    latent = encode_tiled(tokenizer, volume)
    assert latent.flatten().tolist() == [0.0, 8.0]
    assert decode_tiled(tokenizer, latent, shape=(5, 4, 4)).shape == volume.shape
    assert decode_tiled(tokenizer, latent).shape == (1, 1, 8, 4, 4)
