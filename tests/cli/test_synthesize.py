"""`meduet synthesize`, as people and scripts use it."""

import json
import os
import signal

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from napari_meduet.cli import app
from napari_meduet.pipelines.synthesis.outputs import Previews


def meduet(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_scans_are_written_under_names_that_say_synthetic(generating_model, smooth_ct, noisy_ct, tmp_path):
    quick = ("--model", generating_model, "--steps", 1, "--seed", 5, "-n", 2)
    result = meduet(
        "synthesize", "--content", smooth_ct, "--style", noisy_ct, *quick, "-o", tmp_path / "new.nii.gz"
    )
    assert result.exit_code == 0, result.output
    names = [f"new_synthetic-00{k}.{suffix}" for k in (1, 2) for suffix in ("json", "nii.gz")]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [line.split()[-1] for line in result.stdout.splitlines()] == ["5.", "6."]
    assert "Denoising will take about" in result.stderr
    record = json.loads((tmp_path / names[0]).read_text())
    assert (record["synthetic"], record["kind"], record["seed"]) == (True, "generated", 5)
    image = nib.load(tmp_path / names[1])
    assert image.shape == (32, 32, 32)
    assert b"synthetic" in image.header["descrip"].item()
    assert np.isfinite(image.affine).all()


def test_ctrl_c_keeps_what_was_seen(generating_model, tmp_path, monkeypatch):
    give = Previews.give

    def give_and_stop(self, *shown):
        give(self, *shown)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Previews, "give", give_and_stop)
    before = signal.getsignal(signal.SIGINT)
    result = meduet("synthesize", "--model", generating_model, "--steps", 4, "-o", tmp_path / "new.nii.gz")
    assert result.exit_code == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "new_synthetic_partial.json",
        "new_synthetic_partial.nii.gz",
    ]
    assert json.loads((tmp_path / "new_synthetic_partial.json").read_text())["parameters"]["is_partial"]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["-o", "new.txt"], "--output must end in .nii.gz"),
        (["-o", "new.nii.gz", "--wc", "-1"], "content_weight"),
        (["-o", "new.nii.gz", "--noise", "0"], "noise"),
        (["-o", "new.nii.gz", "--size", "96", "96", "100"], "size"),
        (["-o", "new.nii.gz", "--size", "16", "16", "16"], "at least the generator's own"),
        (["-o", "new.nii.gz", "-n", "0"], "count"),
        (["-o", "new.nii.gz", "--sampler", "ddpm"], "ddpm"),
        (["-o", "new.nii.gz", "--style", "nowhere"], "nowhere"),
        (["-o", "new.nii.gz", "--content", "nowhere.nii.gz"], "nowhere.nii.gz"),
        (["-o", "new.nii.gz", "--mask", "mask.nii.gz"], "mask"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing(
    generating_model, tmp_path, monkeypatch, words, named
):
    monkeypatch.chdir(tmp_path)
    result = meduet("synthesize", "--model", generating_model, *words)
    assert result.exit_code == 2, result.output
    (sentence,) = result.stderr.strip().splitlines()
    assert named in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_result_that_exists_is_kept_unless_asked(generating_model, tmp_path):
    (tmp_path / "new_synthetic.nii.gz").write_text("precious")
    words = ("synthesize", "--model", generating_model, "--steps", 1, "-o", tmp_path / "new.nii.gz")
    assert "exists" in meduet(*words).stderr
    assert (tmp_path / "new_synthetic.nii.gz").read_text() == "precious"
    assert meduet(*words, "--overwrite").exit_code == 0
