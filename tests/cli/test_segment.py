"""`meduet segment`, as people and scripts use it."""

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from tiny import save_tiny_model, save_tiny_segmenter
from typer.testing import CliRunner

from napari_meduet.cli import app


def meduet(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def segmenting_model(tmp_path_factory) -> Path:
    return save_tiny_segmenter(save_tiny_model(tmp_path_factory.mktemp("models") / "segmenting"))


def test_labels_picture_and_statistics_are_written_and_agree(segmenting_model, smooth_ct, tmp_path):
    result = meduet(
        "segment", smooth_ct, "-o", tmp_path / "labels.nii.gz", "--model", segmenting_model,
        "--overlay", tmp_path / "labels.png", "--statistics", tmp_path / "volumes.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    image = nib.load(tmp_path / "labels.nii.gz")
    labels = np.asanyarray(image.dataobj)
    assert image.shape == nib.load(smooth_ct).shape
    voxel_ml = abs(np.linalg.det(image.affine[:3, :3])) / 1000

    found = json.loads((tmp_path / "volumes.json").read_text())["labels"]
    sidecar = json.loads((tmp_path / "labels.json").read_text())
    for label, name in (("3", "organ"), ("7", "bone")):
        count = int((labels == int(label)).sum())
        assert found[label]["name"] == sidecar["labels"][label] == name
        assert found[label]["num_voxels"] == count
        assert found[label]["volume_ml"] == pytest.approx(count * voxel_ml)
        assert sidecar["volumes_ml"][label] == found[label]["volume_ml"]
        assert f"{found[label]['volume_ml']:.2f} mL" in result.stdout
    with Image.open(tmp_path / "labels.png") as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(2**24) or []) > 50


def test_a_folder_is_segmented_but_for_what_fails_and_what_is_done(segmenting_model, smooth_ct, mr, tmp_path):
    scans, target = tmp_path / "scans", tmp_path / "labels"
    scans.mkdir()
    shutil.copy(smooth_ct, scans / "a.nii.gz")
    shutil.copy(mr, scans / "c.nii.gz")
    (scans / "b.nii.gz").write_bytes(b"damaged")
    first = meduet("segment", scans, "-o", target, "--model", segmenting_model)
    assert first.exit_code == 65, first.output
    assert "2 segmented, 0 already done, 1 failed" in first.stdout
    assert "b.nii.gz:" in first.stderr
    names = {f"{name}_segmentation.{suffix}" for name in "ac" for suffix in ("nii.gz", "json")}
    assert {path.name for path in target.iterdir()} == names | {"volumes_ml.csv"}
    with (target / "volumes_ml.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        record = json.loads((target / f"{row['segmentation']}.json").read_text())
        assert float(row["organ"]) == pytest.approx(record["volumes_ml"]["3"], abs=1e-3)

    (scans / "b.nii.gz").unlink()
    again = meduet("segment", scans, "-o", target, "--model", segmenting_model)
    assert again.exit_code == 0, again.output
    assert "0 segmented, 2 already done, 0 failed" in again.stdout


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["-o", "new.txt"], "--output must end in .nii.gz"),
        (["-o", "new.nii.gz", "--overlay", "new.jpg"], "--overlay must end in .png"),
        (["-o", "new.nii.gz", "--statistics", "new.json"], "taken by --output or its sidecar"),
        (["-o", "new.nii.gz", "--statistics", "nowhere/volumes.json"], "--statistics: its folder"),
        (["-o", "new.nii.gz", "--model", "nowhere"], "nowhere"),
        (["-o", "new.nii.gz", "--with", "nowhere.nii.gz"], "nowhere.nii.gz"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing(
    segmenting_model, smooth_ct, tmp_path, monkeypatch, words, named
):
    monkeypatch.chdir(tmp_path)
    result = meduet("segment", smooth_ct, "--model", segmenting_model, *words)
    assert result.exit_code == 2, result.output
    (sentence,) = result.stderr.strip().splitlines()
    assert named in sentence
    assert list(tmp_path.iterdir()) == []


def test_scans_whose_names_differ_in_their_ending_have_labels_of_their_own(
    segmenting_model, smooth_ct, tmp_path
):
    scans, target = tmp_path / "scans", tmp_path / "labels"
    scans.mkdir()
    shutil.copy(smooth_ct, scans / "a.nii.gz")
    nib.save(nib.load(smooth_ct), scans / "a.nii")
    done = meduet("segment", scans, "-o", target, "--model", segmenting_model, "--modality", "CT")
    assert "2 segmented" in done.stdout, done.output
    assert {path.name for path in target.glob("*.nii.gz")} == {
        "a.nii_segmentation.nii.gz",
        "a.nii.gz_segmentation.nii.gz",
    }


@pytest.mark.parametrize("words", [["--overlay", "new.png"], ["--overwrite"], ["--with", "new.nii.gz"]])
def test_what_is_for_one_scan_is_refused_for_a_folder(segmenting_model, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    result = meduet("segment", "scans", "-o", "labels", "--model", segmenting_model, *words)
    assert (result.exit_code, len(result.stderr.strip().splitlines())) == (2, 1), result.output
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]


def test_a_model_without_a_segmenter_refuses_before_anything_is_written(tiny_model, smooth_ct, tmp_path):
    (tmp_path / "scans").mkdir()
    shutil.copy(smooth_ct, tmp_path / "scans" / "a.nii.gz")
    for scan, output in ((smooth_ct, "new.nii.gz"), (tmp_path / "scans", "labels")):
        result = meduet("segment", scan, "-o", tmp_path / output, "--model", tiny_model)
        assert result.exit_code == 2, result.output
        assert "has no segmenter" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]


def test_all_files_are_written_or_none(segmenting_model, smooth_ct, tmp_path, monkeypatch):
    """The picture cannot be written, so there are no labels either."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    result = meduet(
        "segment", smooth_ct, "-o", tmp_path / "labels.nii.gz", "--model", segmenting_model,
        "--overlay", tmp_path / "labels.png",
    )  # fmt: skip
    assert result.exit_code == 2, result.output
    assert list(tmp_path.iterdir()) == []
