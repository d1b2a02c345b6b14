"""Crops of prepared scans: the same batch whoever reads it, standardised, domains alike."""

from collections import Counter

import pytest
import torch
from small import working_scan

from meduet_training.data.augmentation.intensity import to_units
from meduet_training.data.caches.prepared import load_prepared, save_prepared
from meduet_training.data.sources.step_batches import Shard, StepBatches
from meduet_training.data.sources.voxels import VoxelSource
from napari_meduet.core.pretexts.masked_diffusion import MaskedDiffusionConfig
from napari_meduet.core.pretexts.residual_unet import ResidualUNetConfig
from napari_meduet.errors import InputError

SHAPE = (16, 16, 16)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    scans = [("CT", 0, "one"), ("CT", 1, "one"), ("CT", 2, "one"), ("MR", 0, "two")]
    files = [folder / f"{number}.safetensors" for number in range(len(scans))]
    for path, (modality, seed, domain) in zip(files, scans, strict=True):
        save_prepared(working_scan(modality, seed, domain), path)
    return files


def test_a_step_is_the_same_whoever_reads_it_in_whatever_order(paths):
    one, other = (VoxelSource(paths, seed=5, shape=SHAPE) for _ in range(2))
    choices = one.choose(3, 4)
    assert choices == other.choose(3, 4) != other.choose(4, 4)
    together, alone = one.read(choices)["latent"], other.read(choices[2:3])["latent"]
    assert together.shape == (4, *one.latent_shape)
    assert torch.equal(together[2:3], alone)


def test_domains_are_drawn_alike_however_many_scans_they_have(paths):
    source = VoxelSource(paths, seed=5, shape=SHAPE)
    counts = Counter(source.domains[choice.domain] for choice in source.choose(0, 400))
    assert 160 < counts["two"] < 240


def test_crops_are_standardised_over_the_body(paths):
    source = VoxelSource(paths[:1], seed=5, shape=SHAPE)
    scan = working_scan("CT", 0, "one")
    mean, std = source.statistics()
    inside = to_units(torch.from_numpy(scan.values).float(), "CT")[torch.from_numpy(scan.body)]
    assert torch.allclose(torch.stack([inside.mean(), inside.std()]), torch.cat([mean, std]), rtol=1e-3)
    units = source.read(source.choose(0, 4))["latent"] * std + mean
    assert units.min() > -1e-5
    assert units.max() < 1 + 1e-5


def test_other_data_has_another_identity(paths):
    first, fewer, larger = (
        VoxelSource(paths, 5, SHAPE),
        VoxelSource(paths[1:], 5, SHAPE),
        VoxelSource(paths, 5, (16, 16, 17)),
    )
    assert len({first.sha256, fewer.sha256, larger.sha256}) == 3
    assert first.sha256 == VoxelSource(paths, 6, SHAPE).sha256


def test_it_feeds_masked_diffusion(paths):
    network = ResidualUNetConfig(grid=(1, 1, 1), widths=(4, 8), num_blocks=(1, 1))
    pretext = MaskedDiffusionConfig(total_steps=2)
    batches = StepBatches(VoxelSource(paths, 5, SHAPE), pretext, network, batch=2, seed=5, share=Shard())
    losses = pretext.build(network)(batches[0], 0)
    assert losses["total"].isfinite()


def test_a_crop_is_what_the_scan_shows_there(paths, monkeypatch):
    monkeypatch.setattr("meduet_training.data.sources.voxels.FLIP", 0.0)
    source = VoxelSource(paths, seed=5, shape=(16, 12, 8))
    mean, std = source.statistics()
    whole = {
        number: to_units(torch.from_numpy(scan.values).float(), scan.modality)
        for number, scan in enumerate(map(load_prepared, paths))
    }
    for choice in source.choose(0, 4):
        (crop,) = source.read([choice])["latent"][:, 0]
        windows = whole[choice.scan].unfold(0, 16, 1).unfold(1, 12, 1).unfold(2, 8, 1)
        difference = (windows - (crop * std + mean)).abs().amax(dim=(3, 4, 5))
        place = torch.nonzero(difference < 1e-5)
        assert len(place) == 1
        body = torch.from_numpy(load_prepared(paths[choice.scan]).body)
        assert body.unfold(0, 16, 1).unfold(1, 12, 1).unfold(2, 8, 1)[tuple(place[0])].float().mean() >= 0.4


def test_a_crop_is_read_without_the_whole_scan(paths, monkeypatch):
    source = VoxelSource(paths, seed=5, shape=SHAPE)
    monkeypatch.setattr("meduet_training.data.sources.voxels.load_prepared", None)
    assert source.read(source.choose(0, 2))["latent"].isfinite().all()


@pytest.mark.parametrize("number", [0, 3], ids=["CT", "MR"])
def test_a_small_scan_lies_amid_air(paths, number, monkeypatch):
    monkeypatch.setattr("meduet_training.data.sources.voxels.FLIP", 0.0)
    source = VoxelSource(paths[number : number + 1], seed=5, shape=(48, 48, 27))  # the scan is 44 x 40 x 26
    mean, std = source.statistics()
    (units,) = source.read(source.choose(0, 1))["latent"][0] * std + mean
    scan = load_prepared(paths[number])
    inside = units[2:46, 4:44, 0:26]
    assert torch.allclose(inside, to_units(torch.from_numpy(scan.values).float(), scan.modality), atol=1e-5)
    assert units.sum() == pytest.approx(float(inside.sum()), rel=1e-4)
    assert units.min() > -1e-5


def test_scans_of_each_domain_are_counted(paths):
    assert VoxelSource(paths, 5, SHAPE).num_scans == {"one": 3, "two": 1}


def test_no_scan_is_refused():
    with pytest.raises(InputError, match="no scan to learn from"):
        VoxelSource([], 5, SHAPE)
