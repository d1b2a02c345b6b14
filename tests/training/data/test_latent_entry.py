"""An entry: what inference would encode, where it lies, how much of it is body, and whose it is not."""

import dataclasses

import numpy as np
import pytest
import torch
from caching import tokenizer_folder
from tiny import save_phantom
from torch import nn
from torch.nn import functional as F

from meduet_training.data.caches.latent_chunks import CorruptedFile
from meduet_training.data.caches.latent_entry import (
    WINDOW,
    ChannelStatistics,
    SourceFile,
    encode_entry,
    open_latent_entry,
    pooled_statistics,
    save_latent_entry,
)
from meduet_training.data.caches.latent_spec import PREPARATION
from meduet_training.data.tokenizer_files import load_tokenizer
from napari_meduet.errors import InputError
from napari_meduet.models.loading import load_model
from napari_meduet.pipelines.common.encoding import prepare_scan
from napari_meduet.tokenizers.tiling import encode_tiled
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.preparation import WorkingGrid

SOURCE = SourceFile(sha256="0" * 64, num_bytes=1, modified_ns=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tokenizer_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def opened(folder):
    return load_tokenizer(folder)


@pytest.fixture(scope="module", params=["CT", "MR"])
def volume(request, tmp_path_factory):
    """Thinner than a window along z alone."""
    path = tmp_path_factory.mktemp("scan") / "a.nii.gz"
    return read_volume(save_phantom(path, request.param, shape=(128, 124, 26)), modality=request.param)


@pytest.fixture(scope="module")
def encoded(opened, volume):
    return encode_entry(*opened, volume)


@pytest.fixture
def entry(encoded, opened, tmp_path):
    save_latent_entry(tmp_path / "a.safetensors", encoded, "a", SOURCE)
    return open_latent_entry(tmp_path / "a.safetensors", "a", opened[1])


@torch.inference_mode()
def test_the_mean_is_what_inference_would_encode(folder, volume, encoded):
    model = load_model(folder, "cpu")
    prepared = prepare_scan(model, volume)
    missing = [max(0, 96 - side) for side in prepared.units.shape]
    ends = [amount for gap in reversed(missing) for amount in (gap // 2, gap - gap // 2)]
    units, body = (
        torch.from_numpy(v.astype(np.float32))[None, None] for v in (prepared.units, prepared.body)
    )
    assert torch.equal(
        encoded.latent[:4], encode_tiled(model.tokenizer, F.pad(units, ends, mode="replicate"))[0]
    )
    to_stride = [amount for side in reversed(F.pad(body, ends).shape[2:]) for amount in (0, -side % 4)]
    assert torch.equal(encoded.latent[-1:], F.avg_pool3d(F.pad(F.pad(body, ends), to_stride), 4)[0])


def test_bfloat16_keeps_eight_bits(entry, encoded):
    back = entry.chunks.read_all().float()
    assert back.shape == encoded.latent.shape
    assert (back - encoded.latent).abs().max() <= encoded.latent.abs().max() * 2**-8
    assert torch.equal(back[-1], encoded.latent[-1])  # shares of 64 voxels lose nothing


def test_a_landmark_lies_where_the_affine_says(volume, encoded):
    """The bone's centre in the latent's body-and-brightness is where it is in the scan, in mm."""
    values = volume.values()
    native = np.argwhere(values > np.quantile(values, 0.5))
    expected = (volume.affine @ np.append(native.mean(axis=0), 1))[:3]
    body = encoded.latent[-1].numpy()
    centre = (np.argwhere(np.ones_like(body)) * body.reshape(-1, 1)).sum(axis=0) / body.sum()
    found = (np.array(encoded.record["affine"]) @ np.append(centre, 1))[:3]
    assert encoded.record["spacing_mm"] == (6.0, 6.0, 6.0)
    assert np.linalg.norm(found - expected) < 6.0


def test_latent_voxels_lie_where_their_voxels_do(volume, encoded, opened):
    """A latent voxel stands for 4 x 4 x 4 voxels of the working grid: its centre is theirs."""
    grid = WorkingGrid.for_volume(volume)
    before = np.array(encoded.record["before"])
    for latent_index in ([0, 0, 0], [3, 5, 7]):
        first = np.array(latent_index) * 4 - before
        expected = grid.affine @ np.append(first + 1.5, 1)
        assert np.array(encoded.record["affine"]) @ np.append(latent_index, 1) == pytest.approx(expected)


def test_the_share_of_body_is_known_for_each_cube(entry):
    share = entry.chunks.read_all()[-1].float()
    for index in np.ndindex(entry.body.shape):
        cube = share[tuple(slice(8 * k, 8 * k + 8) for k in index)]
        assert entry.body[index] == pytest.approx(float(cube.mean()), abs=0.006)


def test_thin_scans_are_continued_to_a_window(encoded):
    assert encoded.latent.shape[3] == WINDOW
    assert min(encoded.latent.shape[1:3]) > WINDOW
    before = encoded.record["before"]
    assert before[0] == before[1] == 0 < before[2]
    assert encoded.latent[-1, :, :, 0].max() == 0  # no body where nothing was scanned


def test_statistics_are_of_the_body_and_of_what_training_draws(encoded, entry):
    latent = encoded.latent.double()
    inside = latent[-1] > 0.5
    noise = torch.randn(4, int(inside.sum()), 50, generator=torch.Generator().manual_seed(0)).double()
    drawn = latent[:4, inside][..., None] + (0.5 * latent[4:8, inside])[..., None].exp() * noise
    mean, std = pooled_statistics([entry.record.sums])
    assert mean == pytest.approx(latent[:4, inside].mean(dim=1).tolist(), rel=1e-6)
    assert std == pytest.approx(drawn.flatten(1).std(dim=1).tolist(), rel=0.02)


def test_statistics_of_parts_are_those_of_the_whole():
    numbers = [np.array([1.0, 2.0, 6.0]), np.array([10.0]), np.array([3.0, 5.0])]
    parts = [ChannelStatistics(count=len(n), mean=(n.mean(),), variance=(n.var(),)) for n in numbers]
    whole = np.concatenate(numbers)
    assert pooled_statistics(parts) == (pytest.approx([whole.mean()]), pytest.approx([whole.std()]))


def test_an_entry_says_nothing_of_the_patient(entry, volume):
    assert set(dataclasses.asdict(entry.record)) == {
        "key", "spec_sha256", "source", "affine", "spacing_mm", "working_shape", "before", "body_percent",
        "sums",
    }  # fmt: skip


def test_an_entry_of_another_scan_or_tokenizer_is_refused(entry, opened, tmp_path):
    path, spec = tmp_path / "a.safetensors", opened[1]
    with pytest.raises(CorruptedFile, match="another scan's"):
        open_latent_entry(path, "b", spec)
    for other in (
        spec.model_copy(update={"tokenizer_sha256": "f" * 64}),
        spec.model_copy(update={"spacing_mm": 2.0}),
        spec.model_copy(update={"preparation": PREPARATION + 1}),
    ):
        with pytest.raises(CorruptedFile, match="another tokenizer, profile, spacing or preparation"):
            open_latent_entry(path, "a", other)


def test_an_entry_of_other_channels_is_refused(encoded, opened, tmp_path):
    wrong = dataclasses.replace(encoded, latent=encoded.latent[1:])
    save_latent_entry(tmp_path / "a.safetensors", wrong, "a", SOURCE)
    with pytest.raises(CorruptedFile, match="its shape"):
        open_latent_entry(tmp_path / "a.safetensors", "a", opened[1])


def test_air_is_no_scan(opened, volume):
    with pytest.raises(InputError, match=r"no contrast|no body"):
        encode_entry(*opened, volume.with_values(np.full(volume.voxels.shape, -1000 * (volume.unit == "HU"))))


def test_a_tokenizer_that_diverges_is_noticed(opened, volume):
    tokenizer, spec = opened

    class Diverging(type(tokenizer)):
        def encode(self, volume):
            mean, log_variance = super().encode(volume)
            mean[0, 0, 0, 0, 0] = torch.nan
            return mean, log_variance

    diverging = Diverging(tokenizer.config).eval()
    diverging.load_state_dict(tokenizer.state_dict())
    with pytest.raises(InputError, match="not finite"):
        encode_entry(diverging, spec, volume)


@pytest.mark.parametrize(
    ("modality", "golden"),
    [("CT", (0.5036872, 0.1101168, 353.21875)), ("MR", (0.4617770, 0.1329419, 384.96875))],
)
def test_prepared_scans_are_those_of_this_version(opened, tmp_path, modality, golden):
    """If this fails, the same scan is prepared to other numbers than before: raise PREPARATION, so that
    caches made before are refused, and put the new numbers here (written by this test at PREPARATION 1)."""
    volume = read_volume(save_phantom(tmp_path / "a.nii.gz", modality), modality=modality)
    _, spec = opened
    cubes = _MeanOfCubes()
    latent = encode_entry(cubes, spec, volume).latent
    units, body = latent[0], latent[-1]
    inside = units[body > 0.5]
    assert PREPARATION == 1
    assert (float(inside.mean()), float(inside.std()), float(body.sum())) == pytest.approx(golden, rel=1e-5)


class _MeanOfCubes(nn.Module):
    """A tokenizer without weights to speak of: what it writes are the prepared units, averaged."""

    name, channels, stride, halo, bytes_per_latent_voxel = "mean", 1, (4, 4, 4), 0, 1000

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def encode(self, volume):
        mean = F.avg_pool3d(volume, 4)
        return mean, torch.zeros_like(mean)

    def decode(self, latent):
        return F.interpolate(latent, scale_factor=4)


class _MeanOfFlatBlocks(_MeanOfCubes):
    stride = (8, 8, 4)

    def encode(self, volume):
        mean = F.avg_pool3d(volume, self.stride)
        return mean, torch.zeros_like(mean)


def test_an_entry_respects_a_stride_per_axis(opened, tmp_path):
    volume = read_volume(save_phantom(tmp_path / "a.nii.gz"), modality="CT")
    spec = opened[1].model_copy(update={"stride": (8, 8, 4), "channels": 1})
    encoded = encode_entry(_MeanOfFlatBlocks(), spec, volume)
    record = encoded.record
    assert encoded.latent.shape == (3, WINDOW, WINDOW, WINDOW)  # the scan is thinner than a window
    assert record["spacing_mm"] == (12.0, 12.0, 6.0)
    affine = np.array(record["affine"])
    assert np.linalg.norm(affine[:3, :3], axis=0) == pytest.approx((12.0, 12.0, 6.0))
    body = encoded.latent[-1]
    centre = (torch.nonzero(body > 0.5).double().mean(dim=0)).numpy()
    native = np.array(volume.voxels.shape) / 2
    expected = volume.affine @ np.append(native, 1)
    assert (affine @ np.append(centre, 1))[:3] == pytest.approx(expected[:3], abs=6.0)
