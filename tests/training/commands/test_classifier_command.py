"""`meduet-train classifier`: run, stop, resume, results, export, and messages for wrong input."""

import json
import signal

import pytest
import torch
from tiny import save_phantom, save_tiny_model
from typer.testing import CliRunner

from meduet_training.commands.train import app
from meduet_training.data.sources.classified_crops import SUB_CROPS, ClassifiedSource
from meduet_training.engine.checkpoints import newest_checkpoint
from meduet_training.tasks.classifier import presets as recipes
from meduet_training.tasks.config import CONFIG
from napari_meduet.models.loading import load_model
from napari_meduet.models.saving import save_model
from napari_meduet.pipelines.classification import classify
from napari_meduet.pipelines.requests import ClassifyRequest

SPLITS = ["train", "train", "train", "test"]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Two models, and scans of two classes, some of them in the test split."""
    folder = tmp_path_factory.mktemp("given")
    save_tiny_model(folder / "model")
    save_tiny_model(folder / "other", seed=1)
    records = []
    for modality, diagnosis in (("CT", "lung"), ("MR", "brain")):
        for number, split in enumerate(SPLITS):
            name = f"{modality}{number}.nii.gz"
            save_phantom(folder / name, modality, number, shape=(40, 36, 24))
            records.append(
                {
                    "path": name, "domain": f"site {modality}", "patient_group": f"patient {name}",
                    "modality": modality, "sequence": None, "split": split, "licence": "CC0",
                    "licence_grade": "A", "diagnosis": diagnosis, "alike": "x",
                    "rare": "first" if number == 0 else "rest", "once": "one" if name[:3] == "CT1" else "two",
                }
            )  # fmt: skip
    (folder / "index.json").write_text(json.dumps(records))
    return folder


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def train(given, output, *more, target="diagnosis"):
    data = ["--model", given / "model", "--data", given, "--cache", given / "factors", "--target", target]
    options = ["--steps", 4, "--batch", 4, "--styles", "off", "--device", "cpu"]
    return call("classifier", *data, "-o", output, *options, "--set", "hardware.workers=0", *more)


@pytest.fixture(scope="module")
def trained(given, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    done = train(given, folder)
    assert done.exit_code == 0, done.output
    return folder, done.output


def test_a_stopped_run_resumes_with_the_same_command(given, trained, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        choose = ClassifiedSource.choose

        def choose_and_signal(self, step, count):
            if step == 2:
                signal.raise_signal(signal.SIGTERM)
            return choose(self, step, count)

        patch.setattr(ClassifiedSource, "choose", choose_and_signal)
        stopped = train(given, tmp_path / "parts")
    assert stopped.exit_code == 75
    done = call("classifier", "-o", tmp_path / "parts")  # the folder holds the other options
    assert done.exit_code == 0, done.output
    whole, parts = (newest_checkpoint(folder).tensors for folder in (trained[0], tmp_path / "parts"))
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


def test_classes_are_printed_and_stored_with_their_counts(trained):
    assert "brain (2 + 1 scans), lung (2 + 1 scans)" in " ".join(trained[1].split())
    settings = (trained[0] / CONFIG).read_text()
    record = newest_checkpoint(trained[0]).record["settings"]["training"]["objective"]
    assert (record["target"], record["classes"]) == ("diagnosis", ["brain", "lung"])
    assert (record["num_scans"], record["modalities"]) == ([2, 2], ["CT", "MR"])
    assert "patient" not in settings.replace("patience", "")


def test_whole_held_out_scans_validate_the_run(trained):
    rows = [json.loads(line) for line in (trained[0] / "validation.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(row["loss"] > 0 and 0 <= row["balanced_accuracy"] <= 1 for row in rows)


def test_the_test_split_is_measured_at_the_end(trained):
    results = json.loads((trained[0] / "results.json").read_text())
    accuracy = next(each for each in results["metrics"] if each["name"] == "balanced accuracy")
    assert (accuracy["num_samples"], accuracy["num_patients"]) == (2, 2)
    assert sorted(each["class"] for each in results["scans"]) == ["brain", "lung"]
    right = [
        max(each["probabilities"], key=each["probabilities"].get) == each["class"]
        for each in results["scans"]
    ]
    assert accuracy["value"] == pytest.approx(sum(right) / 2)
    assert "balanced accuracy" in trained[1]
    page = (trained[0] / "report.html").read_text()
    assert "Test scans" in page
    assert "balanced accuracy of the validation scans" in page


def test_an_exported_classifier_classifies_a_scan_as_the_run_did(given, trained):
    before = load_model(given / "model", "cpu").sha256
    done = call("export-classifier", trained[0], "--into", given / "model")
    assert done.exit_code == 0, done.output
    assert "Its classes are brain, lung" in " ".join(done.output.split())
    model = load_model(given / "model", "cpu")
    assert model.sha256 == before
    assert model.card.classifier.training["validation_balanced_accuracy"] is not None
    found = classify(ClassifyRequest(given / "CT3.nii.gz", model=given / "model", device="cpu"))
    results = json.loads((trained[0] / "results.json").read_text())
    told = next(each for each in results["scans"] if each["class"] == "lung")["probabilities"]
    assert found.probabilities == pytest.approx(
        told, abs=2e-3
    )  # the cache and the model are in half precision


def test_a_classifier_of_another_model_is_not_exported(given, trained):
    refused = call("export-classifier", trained[0], "--into", given / "other")
    assert refused.exit_code == 2
    assert "reads the latents of another model" in " ".join(refused.output.split())
    assert load_model(given / "other", "cpu").classifier is None


def test_a_start_from_meduet_begins_with_the_encoder_and_one_from_scratch_does_not(given, tmp_path):
    encoder = load_model(given / "model", "cpu").meduet.encoder.patch_embedding.weight
    same = {}
    for start in ("meduet", "scratch"):
        done = train(
            given, tmp_path / start, "--start", start, "--set", "training.learning_rate=1e-12",
            "--set", "training.end_learning_rate=0", "--set", "trainer.validate_every=9", "--steps", 1,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        weights = newest_checkpoint(tmp_path / start).tensors
        same[start] = torch.allclose(
            weights["objective.student.encoder.patch_embedding.weight"], encoder, atol=1e-6
        )
    assert same == {"meduet": True, "scratch": False}


def test_crops_of_one_scan_lie_side_by_side_and_classes_are_alike(given, trained):
    from meduet_training.data.augmentation.flips import fit_channel_maps
    from meduet_training.data.caches.factors import open_factors
    from meduet_training.data.cohort.scans import read_cohort

    model = load_model(given / "model", "cpu")
    scans = [scan for scan in read_cohort(given) if scan.split == "train"]
    entries = open_factors(model, scans, given / "factors")
    labels = [0, 1, 1, 1, 1, 1]
    source = ClassifiedSource(entries, labels, (2, 2, 2), 0, model, fit_channel_maps(model.tokenizer))
    chosen = [choice for step in range(40) for choice in source.choose(step, 2 * SUB_CROPS)]
    groups = [chosen[first : first + SUB_CROPS] for first in range(0, len(chosen), SUB_CROPS)]
    assert all(len({choice.scan for choice in group}) == 1 for group in groups)
    assert len({choice.seed for choice in chosen}) == len(chosen)
    of_first = sum(labels[group[0].scan] == 0 for group in groups) / len(groups)
    assert 0.35 < of_first < 0.65
    batch = source.read(chosen[:3])
    assert batch["latent"].shape == (3, 4, 8, 8, 8)
    assert batch["coverage"].shape == (3, 8)
    assert torch.equal(batch["label"], torch.tensor([labels[choice.scan] for choice in chosen[:3]]))
    again = source.read(chosen[1:2])
    assert all(torch.equal(batch[name][1:2], again[name]) for name in batch)


@pytest.mark.parametrize(
    ("target", "words", "sentence"),
    [
        ("diagnoses", [], "has no column diagnoses; did you mean diagnosis?"),
        ("alike", [], "one class alone, x as their alike"),
        ("once", [], "The class one has one patient to train on"),
        ("diagnosis", ["--classes", "lung,liver"], "no scan's diagnosis is liver"),
        ("diagnosis", ["--modality", "CT"], "one class alone, lung"),
        ("diagnosis", ["--styles", "all"], "knows no styles of CT and MR"),
        ("diagnosis", ["--set", "hardware.strategy=fsdp"], "Use ddp"),
        ("diagnosis", ["--set", "training.network.wide=3"], "did you mean width?"),
        ("", [], "target"),
    ],
)
def test_wrong_input_gives_a_message(given, tmp_path, target, words, sentence):
    refused = train(given, tmp_path / "run", *words, target=target)
    assert refused.exit_code == 2, refused.output
    assert sentence in " ".join(refused.output.split())
    assert "Traceback" not in refused.output
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_papers_preset_is_that_of_the_specification():
    paper = recipes.paper()
    assert (paper.learning_rate, paper.weight_decay, SUB_CROPS) == (2e-4, 1e-5, 4)


def test_styles_of_the_model_are_shown_where_it_knows_some(given, tmp_path):
    from napari_meduet.pipelines.factors import make_prototype
    from napari_meduet.pipelines.requests import PrototypeRequest

    model = load_model(given / "model", "cpu")
    styles = {
        f"site {modality}": make_prototype(
            PrototypeRequest([given / f"{modality}0.nii.gz"], model=given / "model", device="cpu")
        ).style
        for modality in ("CT", "MR")
    }
    save_model(
        tmp_path / "styled", model.card, model.tokenizer.state_dict(), model.meduet.state_dict(), styles
    )
    done = train(given, tmp_path / "run", "--model", tmp_path / "styled", "--styles", "one-shot")
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert any(row["loss/augmented"] > 0 for row in rows)
