"""Filling a cache through kills, company, bad scans and a full disk (T11, T13, T14, T16)."""

import dataclasses
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from caching import entries, fill, save_cohort, tokenizer_folder

from meduet_training.data.caches import latent_encoding
from meduet_training.data.caches import latents as latent_cache
from meduet_training.data.caches.latent_chunks import open_chunks
from meduet_training.data.caches.latent_encoding import LEFTOVER_S, CacheOptions, encoding_tasks, fill_cache
from meduet_training.data.caches.latents import ENTRIES, FAILED, entry_path, read_description
from meduet_training.data.sources.latents import CacheSource
from meduet_training.runtime import retry
from napari_meduet.errors import InputError
from napari_meduet.volumes import writing

SERVED = multiprocessing.get_context("forkserver")  # which has imported torch once for all
SERVED.set_forkserver_preload(["meduet_training.data.caches.latent_encoding"])
KILLS = 20 if "MEDUET_SOAK" in os.environ else 1  # `make soak` sets it (T13 asks for 20)
HANGS = "hangs"


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A cohort, a tokenizer, and the entries as one encoder makes them that nobody disturbs."""
    folder = tmp_path_factory.mktemp("given")
    scans, tokenizer = save_cohort(folder / "scans"), tokenizer_folder(folder / "model")
    fill(folder / "cache", tokenizer, scans)
    return scans, tokenizer, entries(folder / "cache")


def encode_until_killed(folder, tokenizer, scans, hangs):
    """An encoder that makes every entry again and again; or that hangs in the middle of its second write."""
    written = []

    def flush(path):
        if path.suffix == ".safetensors":
            written.append(path)
            if len(written) == 2:
                path.write_bytes(path.read_bytes()[:100_000])
                (folder / HANGS).touch()
                time.sleep(600)

    if hangs:
        writing._flush = flush
    while True:
        fill(folder, tokenizer, scans)
        for path in (folder / ENTRIES).glob("*.safetensors"):
            path.unlink()


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_killed_encoder_leaves_whole_entries_alone(given, tmp_path, kill):
    """The first kill hits the middle of a write for certain, the others any moment."""
    scans, tokenizer, expected = given
    encoder = SERVED.Process(target=encode_until_killed, args=(tmp_path, tokenizer, scans[1:], kill == 0))
    encoder.start()
    while not (tmp_path / (HANGS if kill == 0 else ENTRIES)).exists():
        time.sleep(0.01)
    time.sleep(0.0 if kill == 0 else np.random.default_rng(kill).uniform(0.0, 0.4))
    encoder.kill()
    encoder.join()
    for path in (tmp_path / ENTRIES).glob("*.safetensors"):
        if not path.name.startswith("."):
            open_chunks(path).read_all()  # whole, every checksum right
    fill(tmp_path, tokenizer, scans)
    found = entries(tmp_path)
    assert {name: found[name] for name in expected} == expected
    assert all(name.startswith(".") for name in found.keys() - expected.keys())
    assert kill > 0 or found.keys() - expected.keys()  # what was cut off is there, under no final name
    assert CacheSource(tmp_path, seed=1).num_failed == 0


def test_what_a_killed_process_left_is_removed_later(given, tmp_path):
    scans, tokenizer, expected = given
    (tmp_path / ENTRIES).mkdir()
    old, new = (tmp_path / ENTRIES / f".{token * 12}-0.safetensors" for token in "ab")
    for path in (old, new):
        path.write_bytes(b"half an entry")
    os.utime(old, (0, time.time() - LEFTOVER_S - 1))
    fill(tmp_path, tokenizer, scans)
    assert entries(tmp_path).keys() == {*expected, new.name}  # the new one may be another encoder's


def fill_here(folder, tokenizer, scans, counts):
    _, report = fill(folder, tokenizer, scans)
    counts.put(dict(report.counts))


def test_two_encoders_share_the_work(given, tmp_path):
    scans, tokenizer, expected = given
    counts = SERVED.Queue()
    encoders = [SERVED.Process(target=fill_here, args=(tmp_path, tokenizer, scans, counts)) for _ in "ab"]
    for encoder in encoders:
        encoder.start()
    done = [counts.get(timeout=120) for _ in encoders]
    for encoder in encoders:
        encoder.join()
    assert entries(tmp_path) == expected
    assert sum(each.get("encoded", 0) for each in done) == len(scans)  # none twice
    assert all(sum(each.values()) == len(scans) for each in done)
    assert len(CacheSource(tmp_path, seed=1).rows) == 4


HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a+b")
fcntl.lockf(file, fcntl.LOCK_EX, 1, int(sys.argv[2]))
print("held", flush=True)
time.sleep(600)
"""


def test_an_entry_that_another_encoder_is_at_is_waited_for(given, tmp_path, monkeypatch):
    """The other one is killed: the system frees its lock, and the entry is made here."""
    scans, tokenizer, expected = given
    fill(tmp_path, tokenizer, scans)
    key = encoding_tasks(scans)[1].key
    entry_path(tmp_path, key).unlink()
    lock = [str(tmp_path / latent_cache.LOCK_FILE), str(latent_cache._byte_of(key))]
    other = subprocess.Popen([sys.executable, "-c", HOLD, *lock], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    asked = []

    def wait(seconds):
        asked.append(seconds)
        other.kill()
        other.wait()

    monkeypatch.setattr(latent_encoding.time, "sleep", wait)
    fill(tmp_path, tokenizer, scans)
    assert asked == [latent_encoding.WAIT_S]  # it was busy when it was first asked for
    assert entries(tmp_path) == expected


def test_workers_do_what_one_process_does(given, tmp_path):
    scans, tokenizer, expected = given
    _, report = fill(tmp_path / "cache", tokenizer, spoilt(scans, tmp_path, 1), workers=2)
    assert report.counts == {"encoded": 4, "failed": 1}
    found = entries(tmp_path / "cache")
    assert found == {name: expected[name] for name in found}
    assert len(found) == 4


def test_a_worker_that_is_killed_ends_the_run_with_a_sentence(given, tmp_path):
    scans, tokenizer, _ = given
    tasks = encoding_tasks(scans)

    def kill_a_worker(outcome):
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(InputError, match="A worker process ended abruptly"):
        fill_cache(
            CacheOptions(folder=tmp_path, tokenizer=tokenizer, device="cpu", workers=2), tasks, kill_a_worker
        )
    fill(tmp_path, tokenizer, scans)
    assert len(CacheSource(tmp_path, seed=1).rows) == 4


def spoilt(scans, folder, number):
    """The cohort with one scan of which the second half was lost."""
    path = folder / scans[number].path.name
    content = scans[number].path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return [dataclasses.replace(s, path=path) if k == number else s for k, s in enumerate(scans)]


def test_a_corrupt_scan_is_listed_and_the_others_are_encoded(given, tmp_path):
    scans, tokenizer, expected = given
    cohort = spoilt(scans, tmp_path, 1)
    _, report = fill(tmp_path / "cache", tokenizer, cohort)
    assert report.counts == {"encoded": 4, "failed": 1}
    (failed,) = report.failed
    assert failed.task.number == 2
    assert failed.reason.startswith("the scan: ")
    found = entries(tmp_path / "cache")
    assert found == {name: expected[name] for name in found}
    source = CacheSource(tmp_path / "cache", seed=1)
    assert (len(source.rows), source.num_failed) == (3, 1)
    for path in (tmp_path / "cache").rglob("*.json"):
        assert "smith" not in path.read_text()

    _, report = fill(tmp_path / "cache", tokenizer, scans)  # mended: its reason goes
    assert report.counts == {"kept": 4, "encoded": 1}
    assert CacheSource(tmp_path / "cache", seed=1).num_failed == 0


def test_strict_stops_at_the_first(given, tmp_path):
    scans, tokenizer, _ = given
    with pytest.raises(InputError, match=r"^Scan 1 \([0-9a-f]{12}\): the scan: "):
        fill(tmp_path / "cache", tokenizer, spoilt(scans, tmp_path, 0), is_strict=True)
    assert not list((tmp_path / "cache" / ENTRIES).iterdir())


def test_a_scan_that_breaks_the_software_is_one_scan(given, tmp_path, monkeypatch):
    scans, tokenizer, _ = given
    usual = latent_encoding.encode_entry

    def encode(network, spec, volume):
        if volume.modality == "MR":
            raise MemoryError("made up")
        return usual(network, spec, volume)

    monkeypatch.setattr(latent_encoding, "encode_entry", encode)
    _, report = fill(tmp_path, tokenizer, scans)
    assert [outcome.reason for outcome in report.failed] == ["MemoryError: made up"]
    assert report.counts["encoded"] == 4


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_stops_the_run_and_says_how_much_is_free(given, tmp_path, monkeypatch, code):
    """It is no scan's fault: none is listed as failed, and what was finished is kept."""
    scans, tokenizer, expected = given
    usual, left = writing._flush, {"entries": 2}

    def flush(path):
        if path.suffix == ".safetensors":
            left["entries"] -= 1
            if left["entries"] < 0:
                raise OSError(code, os.strerror(code), str(path))
        usual(path)

    monkeypatch.setattr(writing, "_flush", flush)
    with pytest.raises(InputError) as told:
        fill(tmp_path, tokenizer, scans)
    assert os.strerror(code).lower() in str(told.value)
    assert "An entry needs 0." in str(told.value)
    assert (" are free); nothing was changed." in str(told.value)) == (code != errno.EROFS)
    assert len(entries(tmp_path)) == 2
    assert not list((tmp_path / FAILED).iterdir())
    monkeypatch.undo()
    fill(tmp_path, tokenizer, scans)
    assert entries(tmp_path) == expected


def test_a_source_that_fails_in_passing_is_read_again(given, tmp_path, monkeypatch):
    scans, tokenizer, expected = given
    monkeypatch.setattr(retry, "PAUSES_S", (0.0, 0.0, 0.0))
    usual, left = latent_encoding.read_scan, {"times": 3}

    def read(scan):
        if left["times"] > 0:
            left["times"] -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return usual(scan)

    monkeypatch.setattr(latent_encoding, "read_scan", read)
    _, report = fill(tmp_path, tokenizer, scans)
    assert report.counts == {"encoded": len(scans)}
    assert entries(tmp_path) == expected


def test_a_source_that_vanishes_is_listed(given, tmp_path):
    _, tokenizer, _ = given
    cohort = save_cohort(tmp_path / "scans")
    tasks = encoding_tasks(cohort)
    cohort[3].path.unlink()
    report = fill_cache(CacheOptions(folder=tmp_path / "cache", tokenizer=tokenizer, device="cpu"), tasks)
    assert report.counts == {"encoded": 4, "failed": 1}
    assert report.failed[0].task.number == 4


def test_a_cache_that_cannot_be_written_is_told_before_any_work(given, tmp_path):
    scans, tokenizer, _ = given
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="this folder cannot be created"):
        fill(tmp_path / "file" / "cache", tokenizer, scans)


def test_labels_follow_the_manifest_without_encoding(given, tmp_path):
    scans, tokenizer, expected = given
    fill(tmp_path, tokenizer, scans)
    relabelled = [dataclasses.replace(scan, domain="one site") for scan in scans]
    _, report = fill(tmp_path, tokenizer, relabelled[1:])  # and one scan was withdrawn
    assert report.counts == {"kept": len(scans) - 1}
    assert entries(tmp_path) == expected
    source = CacheSource(tmp_path, seed=1)
    assert source.domains == ("one site",)
    assert len(source.rows) == 3
    assert len(read_description(tmp_path).rows) == 4
