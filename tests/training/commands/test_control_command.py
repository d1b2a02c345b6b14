"""`meduet-train control`: train, resume, export, and messages for wrong input."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny import save_phantom, save_tiny_generator, save_tiny_model
from typer.testing import CliRunner

from meduet_training.commands.train import app
from meduet_training.engine.checkpoints import newest_checkpoint
from napari_meduet.models.loading import load_model
from napari_meduet.models.saving import save_generator


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A model with a generator, and three scans: with labels, with other numbers, and without labels."""
    folder = tmp_path_factory.mktemp("given")
    save_tiny_generator(save_tiny_model(folder / "model"))
    save_tiny_model(folder / "plain")
    records = []
    for number, names in enumerate([{"1": "liver"}, {"1": "lung", "4": "liver"}, None]):
        path = save_phantom(folder / f"{number}.nii.gz", "CT", number, shape=(48, 44, 30))
        if names:
            labels = np.zeros((48, 44, 30), np.int16)
            for k, label in enumerate(names):
                labels[10 * k + 10 : 10 * k + 20] = int(label)
            nib.save(nib.Nifti1Image(labels, nib.load(path).affine), folder / f"{number}_seg.nii.gz")
        records.append(
            {
                "path": path.name,
                "seg_path": f"{number}_seg.nii.gz" if names else None,
                "labels": names,
                "domain": "site",
                "patient_group": f"patient {number}",
                "modality": "CT",
                "split": "train",
                "licence": "CC0",
                "licence_grade": "A",
            }
        )
    (folder / "index.json").write_text(json.dumps(records))
    (folder / "unlabelled").mkdir()
    shutil.copy(folder / "2.nii.gz", folder / "unlabelled")
    (folder / "unlabelled" / "index.json").write_text(json.dumps(records[2:]))
    return folder


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def train(given, output, *more):
    data = ["--model", given / "model", "--data", given, "--cache", given / "factors"]
    quick = ["--steps", 2, "--batch", 2, "--device", "cpu", "--set", "hardware.workers=0"]
    return call("control", *data, "-o", output, *quick, *more)


@pytest.fixture(scope="module")
def trained(given, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    done = train(given, folder, "--set", "training.learning_rate=0.01")
    assert done.exit_code == 0, done.output
    return folder, done.output


def test_an_exported_control_is_the_average_of_the_run_with_the_classes_of_the_data(given, trained, tmp_path):
    folder, output = trained
    assert "0 background, 1 liver, 2 lung" in " ".join(output.split())
    assert "patient" not in output
    model = shutil.copytree(given / "model", tmp_path / "model")
    done = call("export-control", folder, "--into", model)
    assert done.exit_code == 0, done.output
    loaded, checkpoint = load_model(model, "cpu"), newest_checkpoint(folder)
    for name, weight in loaded.control.state_dict().items():
        assert torch.equal(weight, checkpoint.tensors[f"objective.teacher.{name}"].half().float())
    assert loaded.control.joins[0].weight.any()
    assert [(each.label, each.name) for each in loaded.card.control.classes] == [
        (0, "background"),
        (1, "liver"),
        (2, "lung"),
    ]
    assert loaded.sha256 == load_model(given / "model", "cpu").sha256
    generator = load_model(given / "model", "cpu").generator.state_dict()
    assert all(
        torch.equal(checkpoint.tensors[f"objective.generator.{name}"], generator[name]) for name in generator
    )
    again = call("control", "-o", folder)  # the folder holds the other options, and all steps are done
    assert again.exit_code == 0, again.output


def test_a_control_of_another_generator_is_not_exported(given, trained, tmp_path):
    model = shutil.copytree(given / "model", tmp_path / "model")
    generator = load_model(model, "cpu").generator
    weights = {name: weight + 1 for name, weight in generator.state_dict().items()}
    save_generator(model, generator.config, weights, {})
    for folder in (model, given / "plain"):
        refused = call("export-control", trained[0], "--into", folder)
        assert refused.exit_code == 2
        assert "another generator" in refused.output
        assert load_model(folder, "cpu").control is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model", "plain"], "has no generator"),
        (["--data", "unlabelled"], "None of the scans to train on has labels"),
        (["--set", "hardware.strategy=fsdp"], "Use ddp"),
        (["--set", "training.objective.drop_styl=0"], "did you mean drop_style?"),
    ],
)
def test_wrong_input_gives_a_message(given, tmp_path, words, sentence):
    words = [given / word if word in ("plain", "unlabelled") else word for word in words]
    refused = train(given, tmp_path / "run", *words)
    assert refused.exit_code == 2, refused.output
    assert sentence in " ".join(refused.output.split())
    assert not (tmp_path / "run" / "checkpoints").exists()
