"""A mask steers a synthesis where the model has a ControlNet. Weights are random: laws are what is left."""

import hashlib
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from napari_meduet.cli import app
from napari_meduet.core.synthesis.control import ControlNet
from napari_meduet.errors import InputError
from napari_meduet.models.card import CONTROL_FILE, MaskClass
from napari_meduet.models.loading import load_model
from napari_meduet.models.saving import save_control
from napari_meduet.pipelines import SynthesisRequest, synthesize

SHAPE = (44, 40, 26)
CLASSES = (MaskClass(label=0, name="background"), MaskClass(label=7, name="liver"))


def controlled(folder, destination, is_awake):
    model = shutil.copytree(folder, destination)
    torch.manual_seed(0)
    control = ControlNet(load_model(model, "cpu").generator, 2)
    if is_awake:
        for parameter in control.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    save_control(model, control, CLASSES, {})
    return model


@pytest.fixture(scope="module")
def model(generating_model, tmp_path_factory):
    return controlled(generating_model, tmp_path_factory.mktemp("controlled") / "model", is_awake=True)


def labels(first=0) -> np.ndarray:
    mask = np.zeros(SHAPE, np.int16)
    mask[first : first + 22] = 7
    return mask


def made(model, content, **options):
    quick = {"sampler": "euler", "steps": 2, "seed": 1, "device": "cpu"}
    return synthesize(SynthesisRequest(content, model=model, **quick | options))


def test_the_mask_changes_the_sample_and_another_mask_otherwise(model, smooth_ct):
    plain, left, right = (
        made(model, smooth_ct, mask=mask).samples[0].values() for mask in (None, labels(), labels(22))
    )
    assert not np.array_equal(plain, left)
    assert not np.array_equal(left, right)


def test_a_controlnet_that_learnt_nothing_changes_nothing(generating_model, smooth_ct, tmp_path):
    untrained = controlled(generating_model, tmp_path / "model", is_awake=False)
    plain, masked = (made(untrained, smooth_ct, mask=mask).samples[0].voxels for mask in (None, labels()))
    assert np.array_equal(plain, masked)


def test_a_file_is_the_mask_it_holds_and_the_record_names_it(model, smooth_ct, tmp_path):
    path = tmp_path / "labels.nii.gz"
    nib.save(nib.Nifti1Image(labels(), nib.load(smooth_ct).affine), path)
    from_file, from_array = (made(model, smooth_ct, mask=mask) for mask in (path, labels()))
    assert np.array_equal(from_file.samples[0].voxels, from_array.samples[0].voxels)
    record = from_file.provenances[0]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert {"role": "mask", "sha256": digest} in record["Sources"]
    files = load_model(model, "cpu").card.files
    assert record["parameters"]["control_sha256"] == files[CONTROL_FILE].sha256


def test_the_command_takes_a_mask(model, smooth_ct, tmp_path):
    nib.save(nib.Nifti1Image(labels(), nib.load(smooth_ct).affine), tmp_path / "labels.nii.gz")
    words = ["--content", smooth_ct, "--mask", tmp_path / "labels.nii.gz", "-o", tmp_path / "new.nii.gz"]
    quick = ["--model", model, "--steps", 1, "--device", "cpu"]
    done = CliRunner().invoke(app, ["synthesize", *map(str, [*words, *quick])])
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "new_synthetic.json").read_text())
    assert [source["role"] for source in record["Sources"]] == ["content", "mask"]


def test_windows_and_a_similar_anatomy_follow_it_too(model, smooth_ct):
    for options in ({"size": (48, 48, 32)}, {"anatomy": "similar"}):
        one, other = (
            made(model, smooth_ct, mask=mask, steps=1, **options).samples[0]
            for mask in (labels(), labels(22))
        )
        assert not np.array_equal(one.voxels, other.voxels)
    assert np.array_equal(one.affine, made(model, smooth_ct, steps=1).samples[0].affine)  # the mask's place


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (np.full(SHAPE, 3), r"The mask has labels 3; .* knows 0, 7"),
        (np.zeros((4, 5, 6), int), r"measure \(4, 5, 6\), the content \(44, 40, 26\)"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(model, smooth_ct, mask, sentence):
    with pytest.raises(InputError, match=sentence):
        made(model, smooth_ct, mask=mask)


def test_labels_that_lie_elsewhere_are_refused(model, smooth_ct, tmp_path):
    nib.save(nib.Nifti1Image(labels(), np.eye(4)), tmp_path / "labels.nii.gz")
    with pytest.raises(InputError, match="lie elsewhere in space"):
        made(model, smooth_ct, mask=tmp_path / "labels.nii.gz")
