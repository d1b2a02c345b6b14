"""A result is there whole, under its name, with its sidecar; or everything is as it was before."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from napari_meduet.errors import InputError
from napari_meduet.volumes import writing
from napari_meduet.volumes.files import read_volume, sidecar_path, write_atomically, write_volume
from napari_meduet.volumes.volume import Volume

from .corpus import LPS_AFFINE, ct_voxels

PROVENANCE = {"synthetic": True}


@pytest.fixture
def volume() -> Volume:
    return Volume(
        voxels=np.random.default_rng(0).integers(0, 999, (64, 64, 40)).astype(np.int16),
        affine=LPS_AFFINE,
        modality="CT",
        unit="HU",
        sha256="0" * 64,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that already holds an older result and its sidecar."""
    (tmp_path / "out.nii.gz").write_bytes(b"the older result")
    (tmp_path / "out.json").write_bytes(b"its sidecar")
    return tmp_path


def as_before(folder: Path) -> bool:
    """Both old files untouched, no other file left behind."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "out.nii.gz": b"the older result",
        "out.json": b"its sidecar",
    }


def test_an_existing_output_is_kept(folder: Path, volume: Volume):
    with pytest.raises(InputError, match=r"out\.json: exists already"):
        write_volume(folder / "out.nii.gz", volume, provenance=PROVENANCE)
    assert as_before(folder)


def test_an_existing_sidecar_alone_is_kept(folder: Path, volume: Volume):
    (folder / "out.nii.gz").unlink()
    with pytest.raises(InputError, match=r"out\.json: exists already"):
        write_volume(folder / "out.nii.gz", volume, provenance=PROVENANCE)
    assert [path.name for path in folder.iterdir()] == ["out.json"]


def test_overwriting_replaces_both(folder: Path, volume: Volume):
    write_volume(folder / "out.nii.gz", volume, provenance=PROVENANCE, overwrite=True)
    np.testing.assert_array_equal(read_volume(folder / "out.nii.gz").voxels, volume.voxels)
    assert "synthetic" in (folder / "out.json").read_text()
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("limit_bytes", [0, 100, 5_000, 100_000])
def test_a_full_disk_changes_nothing(folder: Path, volume: Volume, limit_bytes: int):
    """RLIMIT_FSIZE makes writes fail as a full disk does: at the sidecar or within the voxels."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        with pytest.raises(InputError, match=r"out\.nii\.gz: cannot be written"):
            write_volume(folder / "out.nii.gz", volume, provenance=PROVENANCE, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert as_before(folder)


def test_a_disk_that_is_full_only_when_flushed_changes_nothing(
    folder: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="no space left on device"):
        write_volume(folder / "out.nii.gz", volume, provenance=PROVENANCE, overwrite=True)
    assert as_before(folder)


@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails_is_undone(
    folder: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch, failing: int
):
    calls = []

    def rename(source: Path, destination: Path) -> None:
        calls.append(destination)
        if len(calls) == failing:
            raise PermissionError(13, "Permission denied")
        os.rename(source, destination)

    monkeypatch.setattr(writing.os, "replace", rename)
    with pytest.raises(InputError, match="permission denied"):
        write_volume(folder / "out.nii.gz", volume, provenance=PROVENANCE, overwrite=True)
    assert as_before(folder)


def test_a_read_only_folder_is_named(ordinary_folder: Path, volume: Volume):
    ordinary_folder.chmod(0o555)
    with pytest.raises(InputError, match=r"new\.nii\.gz: cannot be written \(permission denied\)"):
        write_volume(ordinary_folder / "new.nii.gz", volume, provenance=PROVENANCE)
    assert list(ordinary_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere/out.nii.gz", "folder does not exist"),
        ("out.nii.gz/x.nii.gz", "folder does not exist"),
        ("out.png", r"ends in \.nii\.gz or \.nii"),
        ("out", r"ends in \.nii\.gz or \.nii"),
        ("n" * 300 + ".nii.gz", "cannot be written"),
    ],
)
def test_an_impossible_name_is_refused(folder: Path, volume: Volume, name: str, says: str):
    with pytest.raises(InputError, match=says):
        write_volume(folder / name, volume, provenance=PROVENANCE)
    assert as_before(folder)


def test_a_folder_or_a_pipe_is_not_overwritten(tmp_path: Path, volume: Volume):
    (tmp_path / "a.nii.gz").mkdir()
    os.mkfifo(tmp_path / "b.nii.gz")
    for name, says in (("a.nii.gz", "folder"), ("b.nii.gz", "regular file")):
        with pytest.raises(InputError, match=says):
            write_volume(tmp_path / name, volume, provenance=PROVENANCE, overwrite=True)


def test_an_error_of_the_caller_leaves_nothing(tmp_path: Path):
    def half() -> None:
        with write_atomically(tmp_path / "a.style") as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        half()
    assert list(tmp_path.iterdir()) == []


def test_other_results_are_written_the_same_way(tmp_path: Path):
    with write_atomically(tmp_path / "a.style") as temporary:
        assert temporary.suffix == ".style"
        temporary.write_bytes(b"whole")
    assert (tmp_path / "a.style").read_bytes() == b"whole"
    with pytest.raises(InputError, match="exists already"), write_atomically(tmp_path / "a.style"):
        raise AssertionError("the block must not run")


def test_ordinary_permissions(tmp_path: Path):
    """Not the 0600 of a temporary file: a colleague's umask decides; what is overwritten keeps its mode."""
    (tmp_path / "plain").touch()
    with write_atomically(tmp_path / "a.style") as temporary:
        temporary.write_bytes(b"whole")
    assert (tmp_path / "a.style").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "a.style").chmod(0o600)
    with write_atomically(tmp_path / "a.style", overwrite=True) as temporary:
        temporary.write_bytes(b"again")
    assert (tmp_path / "a.style").stat().st_mode & 0o777 == 0o600


def test_a_kill_while_writing_leaves_no_half_result(folder: Path):
    script = """
import sys, numpy as np
from napari_meduet.volumes.files import write_volume
from napari_meduet.volumes.volume import Volume
voxels = np.random.default_rng(0).integers(0, 30000, (400, 400, 200)).astype(np.int16)
volume = Volume(voxels=voxels, affine=np.eye(4), modality="CT", unit="HU", sha256="")
print("ready", flush=True)
write_volume(sys.argv[1], volume, provenance={}, overwrite=True)
"""
    for delay in (0.0, 0.1, 0.3):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(folder / "out.nii.gz")], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if (folder / "out.nii.gz").read_bytes() != b"the older result":  # a fast machine was done before
            assert read_volume(folder / "out.nii.gz").voxels.shape == (400, 400, 200)
            break
        assert (folder / "out.json").read_bytes() == b"its sidecar"
    assert delay > 0, "killed before it could begin, it had written all"


@pytest.mark.parametrize(
    ("name", "sidecar"),
    [
        ("a.nii.gz", "a.json"),
        ("a.nii", "a.json"),
        ("a.b.nii.gz", "a.b.json"),
        ("s.style", "s.json"),
        ("x", "x.json"),
    ],
)
def test_where_the_sidecar_lies(name: str, sidecar: str):
    assert sidecar_path(Path("f") / name) == Path("f") / sidecar


def test_the_same_volume_gives_the_same_bytes(tmp_path: Path, volume: Volume):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_volume(tmp_path / name, volume, provenance=PROVENANCE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_any_memory_order_is_written_right(tmp_path: Path):
    from dataclasses import replace

    base = Volume(voxels=ct_voxels(), affine=LPS_AFFINE, modality="CT", unit="HU", sha256="")
    for k, voxels in enumerate(
        (np.ascontiguousarray(ct_voxels()), ct_voxels()[::-1, :, ::-1], ct_voxels()[:, ::2])
    ):
        write_volume(tmp_path / f"{k}.nii", replace(base, voxels=voxels), provenance=PROVENANCE)
        np.testing.assert_array_equal(read_volume(tmp_path / f"{k}.nii").voxels, voxels)
