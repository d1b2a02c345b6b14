"""A run goes on when its cache is damaged, and no damaged number reaches the network (T12, T15, T16)."""

import builtins
import dataclasses
import errno
import json
import re
import shutil

import pytest
import torch
from caching import fill, flipped, rewrite, save_cohort, tokenizer_folder
from torch.utils.data import DataLoader, Dataset

from meduet_training.data.caches.latent_chunks import CHUNK_SIDE, open_chunks, save_chunks
from meduet_training.data.caches.latents import FAILED, entry_path, read_description
from meduet_training.data.sources.latents import CacheSource
from meduet_training.runtime import retry
from napari_meduet.errors import InputError

STEPS, BATCH = 12, 4


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    scans, tokenizer = save_cohort(folder / "scans"), tokenizer_folder(folder / "model")
    fill(folder / "cache", tokenizer, scans)
    return folder


@pytest.fixture
def cache(given, tmp_path):
    """A copy of the finished cache, and the key of its second scan: one of three of its domain."""
    shutil.copytree(given / "cache", tmp_path / "cache")
    return tmp_path / "cache", read_description(tmp_path / "cache").rows[1].key


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(retry, "PAUSES_S", (0.0, 0.0, 0.0))


def epoch(source) -> list[tuple[tuple[str, ...], dict[str, torch.Tensor]]]:
    """Every batch of a short run, and the scans that were to be in it."""
    batches = []
    for step in range(STEPS):
        choices = source.choose(step, BATCH)
        batches.append((tuple(choice.sample for choice in choices), source.read(choices)))
    return batches


def truncate(folder, key):
    rewrite(folder, key, lambda content: content[: len(content) // 2])


def flip(folder, key):
    """A bit in every cube."""
    cubes = open_chunks(entry_path(folder, key))
    for number in range(cubes.checksums.size):
        rewrite(folder, key, flipped(cubes.offset + 100 + number * 2 * cubes.rows * CHUNK_SIDE**3))


def flip_header(folder, key):
    rewrite(folder, key, flipped(200))


def empty(folder, key):
    rewrite(folder, key, lambda content: b"")


def remove(folder, key):
    entry_path(folder, key).unlink()


def reshape(folder, key):
    """A latent of other sides, with checksums that fit."""
    cubes = open_chunks(entry_path(folder, key))
    save_chunks(entry_path(folder, key), cubes.read_all().float()[:, :16], cubes.record)


def not_finite(folder, key):
    """NaN, with checksums that fit."""
    cubes = open_chunks(entry_path(folder, key))
    save_chunks(entry_path(folder, key), torch.full_like(cubes.read_all().float(), torch.nan), cubes.record)


def swap(folder, key):
    """The content of another scan's entry under its name."""
    shutil.copy(entry_path(folder, read_description(folder).rows[0].key), entry_path(folder, key))


def of_another_tokenizer(folder, key):
    cubes = open_chunks(entry_path(folder, key))
    words = json.loads(cubes.record) | {"spec_sha256": "f" * 64}
    save_chunks(entry_path(folder, key), cubes.read_all().float(), json.dumps(words))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "truncated"),
        (flip, "a checksum is wrong"),
        (flip_header, r"was changed|no entry of a latent cache"),
        (empty, "truncated"),
        (remove, "No such file"),
        (reshape, "its shape"),
        (not_finite, "not finite"),
        (swap, "another scan's"),
        (of_another_tokenizer, "another tokenizer"),
    ],
)
def test_damage_is_found_skipped_and_counted_and_the_epoch_ends(cache, capsys, damage, reason):
    folder, key = cache
    before = epoch(CacheSource(folder, seed=1))
    damage(folder, key)
    source = CacheSource(folder, seed=1)
    after = epoch(source)

    hit = 0
    for (samples, good), (same_samples, seen) in zip(before, after, strict=True):
        assert samples == same_samples  # what a step is drawn from does not depend on damage
        for row, sample in enumerate(samples):
            unchanged = torch.equal(good["latent"][row], seen["latent"][row])
            assert unchanged == (sample != key)
            hit += sample == key
        assert torch.equal(good["domain"], seen["domain"])  # a row is replaced by one of its domain
        assert seen["latent"].isfinite().all()
    assert hit > 3
    assert source.num_skipped >= hit
    told = capsys.readouterr().err
    assert told.count(f"scan {key} is skipped") == 1  # said once, counted always
    assert re.search(reason, told)
    assert "smith" not in told


def test_a_replaced_row_is_the_same_whenever_it_is_read(cache):
    folder, key = cache
    flip(folder, key)
    first, again = epoch(CacheSource(folder, seed=1)), epoch(CacheSource(folder, seed=1))
    for (_, one), (_, other) in zip(first, again, strict=True):
        assert torch.equal(one["latent"], other["latent"])


def test_a_domain_of_which_nothing_can_be_read_ends_the_run_with_a_sentence(cache):
    folder, _ = cache
    for row in read_description(folder).rows:
        if row.domain == "site b":
            empty(folder, row.key)
    source = CacheSource(folder, seed=1)
    with pytest.raises(InputError, match="domain site b cannot be read; run meduet-cache --verify"):
        epoch(source)


def failing(monkeypatch, times: int, error: int):
    """Every file of an entry fails so many times to be opened, then opens."""
    left = {"times": times}
    usual = builtins.open

    def opening(path, *args, **options):
        if str(path).endswith(".safetensors") and left["times"] > 0:
            left["times"] -= 1
            raise OSError(error, "made up", str(path))
        return usual(path, *args, **options)

    monkeypatch.setattr(builtins, "open", opening)


def test_storage_that_fails_in_passing_is_tried_again(cache, monkeypatch):
    folder, _ = cache
    source = CacheSource(folder, seed=1)
    expected = source.read(source.choose(0, 2))
    failing(monkeypatch, 3, errno.EIO)
    batch = source.read(source.choose(0, 2))
    assert torch.equal(batch["latent"], expected["latent"])
    assert source.num_skipped == 0


def test_storage_that_keeps_failing_skips_the_scan(cache, monkeypatch, capsys):
    folder, _ = cache
    source = CacheSource(folder, seed=1)
    failing(monkeypatch, 4, errno.EIO)
    batch = source.read(source.choose(0, 2))
    assert batch["latent"].isfinite().all()
    assert source.num_skipped == 1
    assert "cannot be read: made up" in capsys.readouterr().err


def test_a_file_that_vanishes_during_the_run_is_skipped(cache):
    folder, key = cache
    source = CacheSource(folder, seed=1)
    choices = [c for step in range(STEPS) for c in source.choose(step, BATCH) if c.sample == key]
    source.read(choices[:1])
    remove(folder, key)
    assert source.read(choices[1:2])["latent"].isfinite().all()
    assert source.num_skipped >= 1


def test_what_loading_processes_skip_is_counted_in_the_run(cache):
    folder, key = cache
    flip(folder, key)
    source = CacheSource(folder, seed=1)

    class Steps(Dataset):
        def __len__(self):
            return STEPS

        def __getitem__(self, step):
            return source.read(source.choose(step, BATCH))

    for batch in DataLoader(Steps(), batch_size=None, num_workers=2):
        assert batch["latent"].isfinite().all()
    assert source.num_skipped > 3


def test_a_run_whose_cache_was_damaged_may_go_on_with_its_checkpoint(cache):
    """Identity and standardisation stay as they were, so the checkpoint still fits."""
    folder, key = cache
    before = CacheSource(folder, seed=1)
    flip_header(folder, key)
    after = CacheSource(folder, seed=1)
    assert after.sha256 == before.sha256
    assert all(torch.equal(a, b) for a, b in zip(after.statistics(), before.statistics(), strict=True))


def test_a_rebuilt_entry_is_the_one_that_was_there(given, cache):
    """meduet-cache makes damaged entries anew: with --verify every byte is read for it."""
    folder, key = cache
    path = entry_path(folder, key)
    before = open_chunks(path).read_all()
    scans, tokenizer = save_cohort(given / "scans"), given / "model"
    rewrite(folder, key, flipped(-1000))
    _, report = fill(folder, tokenizer, scans)
    assert report.counts == {"kept": 5}  # a plain run reads headers alone
    _, report = fill(folder, tokenizer, scans, verifies=True)
    assert report.counts == {"kept": 4, "encoded": 1}
    assert [outcome.reason for outcome in report.replaced] == ["a checksum is wrong"]
    assert torch.equal(open_chunks(path).read_all(), before)
    truncate(folder, key)
    _, report = fill(folder, tokenizer, scans)
    assert report.counts == {"kept": 4, "encoded": 1}


def test_a_source_that_changed_is_no_longer_trained_on(given, cache, tmp_path):
    """Its size or time betrays it; the manifest must be made again (a hash in it says what was meant)."""
    folder, key = cache
    scans = save_cohort(tmp_path / "scans")
    tasks, _ = fill(folder, given / "model", scans)
    listed = [dataclasses.replace(t.scan, sha256=t.sha256) for t in tasks]
    (changed,) = [t.scan for t in tasks if t.key == key]
    shutil.copy(scans[0].path, changed.path)
    _, report = fill(folder, given / "model", listed)
    assert [outcome.task.key for outcome in report.failed] == [key]
    assert "changed after the manifest was written" in report.failed[0].reason
    assert (folder / FAILED / f"{key}.json").exists()
    assert key not in {row.key for row in CacheSource(folder, seed=1).rows}
