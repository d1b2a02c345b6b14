"""A latent cache as training data: domains alike, random crops with body in them, rows that stand alone."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from caching import fill, save_cohort, tokenizer_folder
from torch.utils.data import DataLoader

from meduet_training.data.caches.latent_entry import open_latent_entry
from meduet_training.data.caches.latents import entry_path, read_description
from meduet_training.data.cohort.scan import Scan
from meduet_training.data.sources.latents import CacheSource
from meduet_training.data.sources.protocol import Purpose
from meduet_training.data.sources.step_batches import StepBatches
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import ObjectiveConfig
from napari_meduet.errors import InputError


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> list[Scan]:
    return save_cohort(tmp_path_factory.mktemp("scans"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tokenizer_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def cache(cohort, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    fill(folder, tokenizer, cohort)
    return folder


@pytest.fixture(scope="module")
def source(cache) -> CacheSource:
    return CacheSource(cache, seed=1)


def entry_of(source, choice):
    key = source.rows[choice.scan].key
    return open_latent_entry(entry_path(source.folder, key), key, source.spec)


def test_a_batch_is_standardised_latents_with_their_domain(source):
    choices = source.choose(0, 8)
    batch = source.read(choices)
    assert source.domains == ("site a", "site b")
    assert source.latent_shape == (4, 24, 24, 24)
    assert batch["latent"].shape == (8, *source.latent_shape)
    assert batch["latent"].dtype == torch.float32
    assert batch["domain"].tolist() == [choice.domain for choice in choices]
    assert batch["coverage"].shape == (8, 216)
    assert 0 <= batch["coverage"].min() <= batch["coverage"].max() <= 1


def test_a_step_is_the_same_whenever_it_is_drawn_and_a_row_stands_alone(source, cache):
    batch = source.read(source.choose(3, 6))
    again = CacheSource(cache, seed=1)
    assert again.choose(3, 6) == source.choose(3, 6)
    assert again.choose(3, 6) != source.choose(4, 6)
    part = again.read(again.choose(3, 6)[2:4])
    for name, value in part.items():
        assert torch.equal(value, batch[name][2:4]), name


def test_domains_are_drawn_alike_however_many_scans_they_have(source):
    choices = source.choose(0, 2000)
    counts = Counter(choice.domain for choice in choices)
    assert counts[0] / 2000 == pytest.approx(0.5, abs=0.04)  # three scans against one
    scans = Counter(choice.scan for choice in choices if choice.domain == 0)
    assert len(scans) == 3
    assert min(scans.values()) > 250


def test_held_out_scans_are_never_drawn(source, cohort):
    patients = {source.rows[choice.scan].patient for choice in source.choose(0, 500)}
    assert patients == {scan.patient for scan in cohort if scan.split == "train"}


def test_the_posterior_is_drawn_anew_at_each_step(cache):
    """Without turns, a scan of one window has one place: what differs is the noise, of the right size."""
    source = CacheSource(cache, seed=1, turns=False)
    (thin,) = [k for k, domain in enumerate(source._domain) if domain == 1]
    choices = [choice for step in range(40) for choice in source.choose(step, 2) if choice.scan == thin]
    drawn = source.read(choices)["latent"]
    assert not torch.equal(drawn[0], drawn[1])
    values = entry_of(source, choices[0]).chunks.read_all().float()
    mean, std = (numbers.view(-1, 1, 1, 1) for numbers in source.statistics())
    assert torch.allclose(drawn.mean(dim=0), (values[:4] - mean) / std, atol=1.0)
    expected = ((0.5 * values[4:8]).exp() / std).mean(dim=(1, 2, 3))
    assert drawn.std(dim=0).mean(dim=(1, 2, 3)) == pytest.approx(expected, rel=0.05)


def test_crops_lie_at_random_where_there_is_body(source):
    (large,) = [k for k, row in enumerate(source.rows) if min(_shape(source, row.key)) > 24]
    row = source.rows[large]
    whole = (
        open_latent_entry(entry_path(source.folder, row.key), row.key, source.spec)
        .chunks.read_all()[-1]
        .float()
    )
    crops = [
        source._crop(row, choice.generator(Purpose.reading))
        for step in range(30)
        for choice in source.choose(step, 2)
    ]
    shares = torch.stack([crop.body.mean() for crop in crops])
    assert len({float(crop.mean.sum()) for crop in crops}) > 20
    assert shares.mean() > whole.mean()
    assert shares.min() > 0.3


def test_coverage_is_in_the_order_of_the_tokens(source):
    choice = source.choose(0, 1)[0]
    row = source.rows[choice.scan]
    crop = source._crop(row, choice.generator(Purpose.reading))
    untold = CacheSource(source.folder, seed=1, turns=False)
    coverage = untold.read([choice])["coverage"][0]
    for token, index in ((0, (0, 0, 0)), (1, (0, 0, 1)), (36, (1, 0, 0)), (215, (5, 5, 5))):
        box = tuple(slice(4 * k, 4 * k + 4) for k in index)
        assert coverage[token] == pytest.approx(float(crop.body[box].mean()), abs=1e-6)


def test_smaller_crops_for_smaller_networks(cache):
    source = CacheSource(cache, seed=1, side=8)
    assert source.latent_shape == (4, 8, 8, 8)
    assert source.read(source.choose(0, 2))["latent"].shape == (2, 4, 8, 8, 8)
    for side in (0, 6, 28):
        with pytest.raises(InputError, match="whole tokens of 4"):
            CacheSource(cache, seed=1, side=side)


def test_the_loader_of_a_run_takes_it(source):
    """In processes of their own, as a run reads; what they give is what one process reads."""
    network = MeDUETConfig.tiny(num_domains=2)
    batches = StepBatches(source, ObjectiveConfig(total_steps=3), network, batch=4, seed=1)
    for step, batch in enumerate(DataLoader(batches, batch_size=None, num_workers=2)):
        assert torch.equal(batch["latent"], batches[step]["latent"])
        assert torch.equal(batch["mask"], batches[step]["mask"])
    assert source.num_skipped == 0


def test_validation_shows_held_out_scans_only(source, cohort):
    crops = source.validation_crops(3, seed=0)
    (held_out,) = [scan for scan in cohort if scan.split == "test"]
    assert crops.patients == (held_out.patient,) * 3
    assert crops.modalities == ("CT",) * 3
    assert crops.latent.shape == (3, *source.latent_shape)
    assert torch.equal(crops.latent, source.validation_crops(3, seed=0).latent)


def test_the_identity_of_the_data_is_scans_labels_and_tokenizer(cache, cohort, tokenizer, tmp_path):
    before = CacheSource(cache, seed=1)
    assert CacheSource(cache, seed=2).sha256 == before.sha256
    assert CacheSource(cache, seed=1, turns=False).sha256 != before.sha256
    relabelled = [replace(cohort[0], domain="site c"), *cohort[1:]]
    fill(tmp_path, tokenizer, relabelled)
    assert CacheSource(tmp_path, seed=1).sha256 != before.sha256


def test_an_unfinished_cache_is_not_trained_on(cohort, tokenizer, tmp_path):
    fill(tmp_path, tokenizer, cohort, shard=(1, 2))
    with pytest.raises(InputError, match="not all scans of this cache are encoded yet"):
        CacheSource(tmp_path, seed=1)
    fill(tmp_path, tokenizer, cohort, shard=(2, 2))
    assert len(CacheSource(tmp_path, seed=1).rows) == 4


def test_a_folder_that_is_no_cache_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no cache\.json"):
        CacheSource(tmp_path, seed=1)


def test_a_cache_without_training_scans_is_refused(cohort, tokenizer, tmp_path):
    fill(tmp_path, tokenizer, [scan for scan in cohort if scan.split == "test"])
    with pytest.raises(InputError, match="no scan of this cache's train split"):
        CacheSource(tmp_path, seed=1)


def _shape(source, key):
    return open_latent_entry(
        entry_path(source.folder, key), key, read_description(source.folder).spec
    ).chunks.shape
