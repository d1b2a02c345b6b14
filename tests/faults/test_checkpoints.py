"""Checkpoints on disk: whole or not there, and known to be damaged when they are (T1, T6, T10, T11, T16)."""

import errno
import json
import multiprocessing
import os
import random
import shutil
import time
from pathlib import Path

import pytest
import torch
from small_disks import resize

from meduet_training.engine import checkpoints
from meduet_training.engine.checkpoints import (
    FOLDER,
    CorruptedCheckpoint,
    checkpoint_paths,
    load_checkpoint,
    newest_checkpoint,
    remove_leftovers,
    save_checkpoint,
)
from napari_meduet.errors import InputError

TENSORS = {
    "weights": torch.arange(12.0).reshape(3, 4),
    "half": torch.ones(5, dtype=torch.bfloat16),
    "count": torch.tensor(3),
    "bytes": torch.arange(7, dtype=torch.uint8),
    "none": torch.zeros(0, 2),
}
RECORD = {"settings": {"batch": 4}, "note": "µ"}


def save(folder: Path, *steps: int, keep: int = 3) -> list[Path]:
    return [save_checkpoint(folder, step, TENSORS, RECORD, keep) for step in steps]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / FOLDER).iterdir())


def test_what_was_saved_comes_back(tmp_path):
    (path,) = save(tmp_path, 7)
    found = newest_checkpoint(tmp_path)
    assert (found.step, found.record, found.path) == (7, RECORD, path)
    assert found.tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert found.tensors[name].dtype == value.dtype
        assert torch.equal(found.tensors[name], value), name
    assert found.under("by") == {"tes": found.tensors["bytes"]}


def test_a_new_folder_holds_no_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path) is None


def test_the_last_ones_are_kept(tmp_path):
    save(tmp_path, 1, 2, 30, 100_000_000, keep=2)
    assert names(tmp_path) == ["step-00000030.safetensors", "step-100000000.safetensors"]
    assert newest_checkpoint(tmp_path).step == 100_000_000


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def flip_last_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def zero_the_middle(path: Path) -> None:
    """As a block that never reached the disk."""
    content = bytearray(path.read_bytes())
    quarter = len(content) // 4
    content[-2 * quarter : -quarter] = bytes(quarter)
    path.write_bytes(content)


def put_another_in_its_place(path: Path) -> None:
    shutil.copy(path.with_name("step-00000001.safetensors"), path)


def forbid_reading(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE = [truncate, empty, append, flip_last_bit, zero_the_middle, put_another_in_its_place, forbid_reading]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_with_a_word(tmp_path, damage):
    save(tmp_path, 1, 2)
    damage(tmp_path / FOLDER / "step-00000002.safetensors")
    said = []
    assert newest_checkpoint(tmp_path, said.append).step == 1
    assert len(said) == 1
    assert said[0].startswith("step-00000002.safetensors: ")
    assert "step-00000001.safetensors" in said[0]


def test_a_missing_checkpoint_is_no_matter(tmp_path):
    save(tmp_path, 1, 2)[1].unlink()
    assert newest_checkpoint(tmp_path).step == 1


def test_a_flipped_bit_is_found_in_every_byte(tmp_path):
    """But in the blanks that fill up its header, where it changes nothing."""
    (path,) = save_checkpoint(tmp_path, 1, {"a": torch.arange(3.0)}, {"b": 1}).parent.iterdir()
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    unseen = []
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found = load_checkpoint(path)
        except CorruptedCheckpoint:
            continue
        assert torch.equal(found.tensors["a"], torch.arange(3.0))
        assert found.record == {"b": 1}
        unseen.append(place)
    assert len(unseen) < 8
    assert all(place < header for place in unseen)


def test_when_all_are_damaged_nothing_starts_again_by_itself(tmp_path):
    for path in save(tmp_path, 1, 2):
        truncate(path)
    with pytest.raises(InputError, match="all 2 checkpoints are damaged; give another output folder"):
        newest_checkpoint(tmp_path)


def test_a_damaged_checkpoint_does_not_displace_a_whole_one(tmp_path):
    for path in save(tmp_path, 1, 2, 8, 9)[2:]:
        truncate(path)
    save(tmp_path, 3, keep=2)
    assert names(tmp_path) == ["step-00000002.safetensors", "step-00000003.safetensors"]


def test_a_full_disk_is_found_before_anything_is_written(tmp_path, monkeypatch):
    save(tmp_path, 1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: usage._replace(free=20_000))
    with pytest.raises(InputError) as refusal:
        save(tmp_path, 2)
    assert f"{tmp_path / FOLDER}: the disk is full; a checkpoint needs 1.05 MB and 0.02 MB are free" in str(
        refusal.value
    )
    assert newest_checkpoint(tmp_path).step == 1


def test_a_disk_that_fills_up_during_a_save_keeps_what_it_had(small_disk, monkeypatch):
    resize(small_disk, "3m")
    tensors = {"weights": torch.ones(2 * 2**18)}  # 2 MiB
    save_checkpoint(small_disk, 1, tensors, RECORD)
    monkeypatch.setattr(checkpoints, "check_space", lambda folder, tensors: None)
    with pytest.raises(InputError, match=r"written .*No space left.*needs 3.15 MB and .* are free"):
        save_checkpoint(small_disk, 2, tensors, RECORD)
    assert names(small_disk) == ["step-00000001.safetensors"]
    assert newest_checkpoint(small_disk).step == 1


@pytest.mark.parametrize("times", [1, 3])
def test_storage_that_fails_in_passing_is_tried_again(tmp_path, monkeypatch, times):
    monkeypatch.setattr("meduet_training.runtime.retry.PAUSES_S", (0, 0, 0))
    failures = [errno.EIO] * times
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if failures:
            raise OSError(failures.pop(), "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    save(tmp_path, 1)
    assert not failures
    assert names(tmp_path) == ["step-00000001.safetensors"]


def test_storage_that_keeps_failing_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("meduet_training.runtime.retry.PAUSES_S", (0, 0, 0))
    save(tmp_path, 1)

    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(
        InputError, match=r"step-00000002.safetensors: could not be written .*Input/output error"
    ):
        save(tmp_path, 2)
    assert names(tmp_path) == ["step-00000001.safetensors"]


def save_for_ever(folder: Path, written) -> None:
    torch.set_num_threads(1)
    tensors = {"a": torch.zeros(2**20)}
    for step in range(1, 10_000):
        tensors["a"].fill_(step)
        save_checkpoint(folder, step, tensors, {})
        written.value = step


def test_a_kill_at_any_moment_leaves_a_whole_newest_checkpoint(tmp_path):
    generator = random.Random(0)  # noqa: S311
    context = multiprocessing.get_context("fork")
    for kill in range(10):
        folder, written = tmp_path / str(kill), context.Value("i", 0)
        process = context.Process(target=save_for_ever, args=(folder, written))
        process.start()
        while not written.value:
            time.sleep(0.001)
        time.sleep(generator.uniform(0.0, 0.05))
        process.kill()
        process.join()
        said = []
        found = newest_checkpoint(folder, said.append)
        assert said == []  # the newest is whole, not the one before
        assert found.step >= written.value
        assert torch.all(found.tensors["a"] == found.step)
        remove_leftovers(folder)
        assert names(folder) == [path.name for path in checkpoint_paths(folder)]
        assert len(names(folder)) <= 3 + 1  # killed before the oldest was removed


def test_the_checksum_is_inside_the_file(tmp_path):
    (path,) = save(tmp_path, 1)
    assert names(tmp_path) == [path.name]
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert len(header["__metadata__"]["sha256"]) == 64
