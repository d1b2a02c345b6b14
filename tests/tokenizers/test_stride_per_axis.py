"""A tokenizer with another stride along z, as video tokenizers have: tiles, scans and caches respect it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import MEDUET, save_phantom
from torch import nn

from napari_meduet.core.meduet import MeDUET, MeDUETConfig
from napari_meduet.core.standardisation import LatentStandardisation
from napari_meduet.models.card import ModelCard, ProfileCard, TokenizerCard
from napari_meduet.models.model import Model
from napari_meduet.pipelines.common.encoding import (
    coverage_grid,
    decode_latent,
    decode_windows,
    encode_latent,
    encode_scan,
    prepare_scan,
)
from napari_meduet.pipelines.common.progress import null_progress
from napari_meduet.tokenizers.tiling import decode_tiled, encode_tiled
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.intensity import CT_FULL

STRIDE = (8, 8, 4)


class BlockMean(nn.Module):
    """Writes the mean of each block of 8 x 8 x 4 voxels, and fills the block with it again."""

    name, channels, stride, halo, bytes_per_latent_voxel = "block-mean", 1, STRIDE, 1, 1000

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def encode(self, volume):
        mean = F.avg_pool3d(volume, STRIDE)
        return mean, torch.zeros_like(mean)

    def decode(self, latent):
        for axis, stride in zip((2, 3, 4), STRIDE, strict=True):
            latent = latent.repeat_interleave(stride, axis)
        return latent


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    meduet = MeDUET(MeDUETConfig(**{**MEDUET, "grid": (2, 2, 2), "latent_channels": 1})).eval()
    card = ModelCard(
        name="toy",
        description="Random weights.",
        modalities=("CT",),
        tokenizer=TokenizerCard(name="block-mean", config={}, latent_mean=(0.2,), latent_std=(0.5,)),
        meduet={},
        profiles={"CT": ProfileCard(name=CT_FULL.name, knots=CT_FULL.knots)},
        working_spacing_mm=1.5,
    )
    return Model(
        card=card,
        sha256="0" * 64,
        device=torch.device("cpu"),
        tokenizer=BlockMean(),
        meduet=meduet,
        latents=LatentStandardisation.of_channels((0.2,), (0.5,)),
    )


def test_it_is_a_tokenizer():
    assert isinstance(BlockMean(), Tokenizer)


def test_tokens_and_windows_have_the_stride_of_their_axis(model):
    assert model.token_voxels == (32, 32, 16)
    assert model.window_voxels == (64, 64, 32)


@settings(max_examples=20, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 90)] * 3), seed=st.integers(0, 99))
@torch.inference_mode()
def test_tiles_equal_the_whole_for_any_size(shape, seed):
    tokenizer = BlockMean()
    volume = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(seed))
    ends = [
        amount for side, step in zip(shape[::-1], STRIDE[::-1], strict=True) for amount in (0, -side % step)
    ]
    latent = tokenizer.encode(F.pad(volume, ends, mode="replicate"))[0]
    budget = 6**3 * tokenizer.bytes_per_latent_voxel  # tiles of 6 latent voxels
    tiled = encode_tiled(tokenizer, volume, memory_budget_bytes=budget)
    assert tiled.shape == (1, 1, *(-(-side // step) for side, step in zip(shape, STRIDE, strict=True)))
    torch.testing.assert_close(tiled, latent)
    back = decode_tiled(tokenizer, tiled, shape=shape, memory_budget_bytes=budget)
    assert back.shape == volume.shape
    torch.testing.assert_close(back, tokenizer.decode(latent)[(..., *(slice(side) for side in shape))])


@torch.inference_mode()
def test_a_scan_becomes_tokens_and_returns_to_its_grid(model, tmp_path):
    volume = read_volume(save_phantom(tmp_path / "scan.nii.gz", shape=(120, 90, 40)), modality="CT")
    scan = encode_scan(model, volume, null_progress)
    prepared, latent = scan.prepared, scan.latent
    padded = [
        before + side + after
        for before, side, after in zip(prepared.before, prepared.units.shape, prepared.after, strict=True)
    ]
    assert all(side % token == 0 for side, token in zip(padded, model.token_voxels, strict=True))
    assert latent.shape[1:] == tuple(side // step for side, step in zip(padded, STRIDE, strict=True))
    coverage = coverage_grid(scan, model)
    assert coverage.shape == tuple(
        side // token for side, token in zip(padded, model.token_voxels, strict=True)
    )
    np.testing.assert_allclose(
        float(coverage.sum()) * np.prod(model.token_voxels), prepared.body.sum(), rtol=1e-5
    )

    units = decode_latent(model, prepared, model.restored(latent)[None], null_progress)
    whole = encode_latent(model, prepare_scan(model, volume), null_progress)
    assert units.shape == prepared.units.shape
    torch.testing.assert_close(model.restored(latent)[None], whole)
    swapped = decode_windows(model, scan, lambda run: scan.style[run], null_progress)
    assert swapped.shape == whole.shape
