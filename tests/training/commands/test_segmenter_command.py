"""`meduet-train segmenter`: run, stop, end early, resume, panels, results, export, wrong input."""

import json
import shutil
import signal

import nibabel as nib
import numpy as np
import pytest
import torch
from tiny import phantom, save_phantom, save_tiny_model
from typer.testing import CliRunner

from meduet_training.commands.train import app
from meduet_training.data.sources import labelled_crops as labelled_source
from meduet_training.data.sources.labelled_crops import LabelledSource
from meduet_training.engine.best_weights import read_best
from meduet_training.engine.checkpoints import newest_checkpoint
from meduet_training.tasks.pretraining.export import known_styles
from meduet_training.tasks.segmenter import presets as recipes
from meduet_training.tasks.segmenter import validation as segmenter_validation
from napari_meduet.models.loading import load_model
from napari_meduet.models.saving import save_model
from napari_meduet.pipelines import SegmentRequest, read_volume, segment

SHAPE = (48, 44, 30)
CLASSES = [{"1": "organ", "4": "bone"}, {"4": "bone"}, {"1": "organ", "4": "bone"}, None]


def labels(names, modality: str) -> np.ndarray:
    """Return the label map of organ and bone in the phantom."""
    values = phantom(modality, 0, shape=SHAPE).astype(float)
    found = np.zeros(SHAPE, np.uint8)
    limits = (1500, 80, 110) if modality == "CT" else (-1, 600, 900)
    found[values > limits[0]] = 4 if modality == "CT" else 0
    if "1" in names:
        found[(values > limits[1]) & (values < limits[2])] = 1
    return found


def record(name: str, number: int, **changes):
    return {
        "path": f"{name}.nii.gz", "seg_path": f"{name}_seg.nii.gz", "labels": {"1": "organ", "4": "bone"},
        "domain": "site a", "patient_group": f"patient {number}", "modality": "CT", "sequence": None,
        "split": "train", "licence": "CC0", "licence_grade": "A",
    } | changes  # fmt: skip


def save_labelled(folder, name: str, number: int, names, modality: str = "CT"):
    path = save_phantom(folder / f"{name}.nii.gz", modality, number, shape=SHAPE)
    found = nib.Nifti1Image(labels(names, modality), nib.load(path).affine)
    nib.save(found, folder / f"{name}_seg.nii.gz")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Two models, and scans with labels of two, one or no structures."""
    folder = tmp_path_factory.mktemp("given")
    records = []
    for number, names in enumerate(CLASSES):
        save_labelled(folder, f"{number}", number, names or {})
        split = "test" if number == 2 else "train"
        records.append(
            record(
                f"{number}",
                number,
                labels=names,
                split=split,
                seg_path=f"{number}_seg.nii.gz" if names else None,
            )
        )
    (folder / "index.json").write_text(json.dumps(records))
    (folder / "unlabelled").mkdir()
    shutil.copy(folder / "3.nii.gz", folder / "unlabelled")
    (folder / "unlabelled" / "index.json").write_text(json.dumps(records[3:]))
    (folder / "names.yaml").write_text("1: liver\n4: liver\n")
    save_tiny_model(folder / "other", seed=1, depth=4)
    save_tiny_model(folder / "shallow")
    save_tiny_model(folder / "styleless", depth=4)
    model = load_model(save_tiny_model(folder / "model", depth=4), "cpu")
    from meduet_training.data.cohort.scans import read_cohort

    styles = known_styles(model, read_cohort(folder)[:1])
    weights = model.tokenizer.state_dict(), model.meduet.state_dict()
    save_model(folder / "model", model.card, *weights, styles, overwrite=True)
    return folder


@pytest.fixture(autouse=True, scope="module")
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labelled_source, "EXAMPLES_AIMED_AT", 4)
        patch.setattr(segmenter_validation, "NUM_CROPS", 4)
        yield


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def train(given, output, *more, model="model", data=""):
    words = ["--model", given / model, "--data", given / data, "--cache", given / "examples"]
    quickly = [
        "--steps",
        4,
        "--device",
        "cpu",
        "--set",
        "hardware.workers=0",
        "--set",
        "training.network.features=8",
    ]
    return call("segmenter", *words, "-o", output, *quickly, *more)


@pytest.fixture(scope="module")
def trained(given, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    done = train(given, folder, "--patience", 0)
    assert done.exit_code == 0, done.output
    return folder, " ".join(done.output.split())


def rows(folder):
    return [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]


def settings(folder):
    return newest_checkpoint(folder).record["settings"]["training"]


def test_a_run_prints_its_classes_and_its_validation_set(trained):
    folder, output = trained
    assert "Classes, by their numbers in the predicted label map: 0 background, 1 organ, 4 bone." in output
    assert "there are too few patients to hold one out" in output
    assert "patient 0" not in output
    objective = settings(folder)["objective"]
    assert (objective["labels"], objective["names"]) == ([0, 1, 4], ["background", "organ", "bone"])
    assert objective["augmentation"]["probability"] == 0.9  # one shot: two scans of three have labels
    assert settings(folder)["start"] == "meduet"


def test_a_run_leaves_dice_overlays_a_report_and_results_on_the_test_split(trained):
    folder, output = trained
    assert [row["step"] for row in rows(folder)] == [1, 2, 3, 4]
    assert all(0 <= row["dice"] <= 1 and set(row["classes"]) == {"organ", "bone"} for row in rows(folder))
    assert (folder / "panels" / "step-00000004-labels.png").is_file()
    assert "mean Dice of the validation crops" in (folder / "report.html").read_text()
    results = json.loads((folder / "results.json").read_text())
    assert [each["name"] for each in results["metrics"][:3]] == [
        "Dice: mean over structures", "Dice: organ", "Dice: bone",
    ]  # fmt: skip
    assert {(each["structure"], each["scan"]) for each in results["scans"]} == {("organ", 1), ("bone", 1)}
    assert "Dice: mean over structures" in output
    kept = "".join(path.read_text() for path in folder.glob("*.json*"))
    assert "patient 2" not in kept
    assert "nii.gz" not in kept


def test_the_best_weights_are_kept_and_exported(given, trained, tmp_path):
    folder, _ = trained
    best = read_best(folder)
    found = rows(folder)
    assert best.score == max(row["dice"] for row in found)
    assert best.step == next(row["step"] for row in found if row["dice"] == best.score)
    model = shutil.copytree(given / "model", tmp_path / "model")
    done = call("export-segmenter", folder, "--into", model)
    assert done.exit_code == 0, done.output
    assert f"Wrote the segmenter after {best.step} of 4 steps" in " ".join(done.output.split())
    loaded = load_model(model, "cpu")
    for name, weight in loaded.segmenter.state_dict().items():
        assert torch.equal(weight, best.tensors[name].half().float()), name
    card = loaded.card.segmenter
    assert [(each.label, each.name) for each in card.classes] == [
        (0, "background"),
        (1, "organ"),
        (4, "bone"),
    ]
    assert (card.modalities, card.training["steps_taken"]) == (("CT",), best.step)
    assert loaded.sha256 == load_model(given / "model", "cpu").sha256


def test_a_segmenter_of_another_model_or_another_network_is_not_exported(given, trained, tmp_path):
    model = shutil.copytree(given / "other", tmp_path / "other")
    refused = call("export-segmenter", trained[0], "--into", model)
    assert refused.exit_code == 2
    assert "reads the latents of another model" in refused.output
    assert call("export-segmenter", tmp_path, "--into", model).exit_code == 2
    assert load_model(model, "cpu").segmenter is None


def test_a_stopped_run_resumes_bit_for_bit_from_its_folder(given, trained, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        choose = LabelledSource.choose

        def choose_and_signal(self, step, count):
            if step == 1:
                signal.raise_signal(signal.SIGTERM)
            return choose(self, step, count)

        patch.setattr(LabelledSource, "choose", choose_and_signal)
        stopped = train(given, tmp_path / "parts", "--patience", 0)
    assert stopped.exit_code == 75, stopped.output
    assert [row["step"] for row in rows(tmp_path / "parts")] == [1]  # step 2 is validated after the restart
    done = call("segmenter", "-o", tmp_path / "parts")
    assert done.exit_code == 0, done.output
    whole, parts = (newest_checkpoint(folder).tensors for folder in (trained[0], tmp_path / "parts"))
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    scores = (
        [(row["step"], row["dice"]) for row in rows(folder)] for folder in (trained[0], tmp_path / "parts")
    )
    assert next(scores) == next(scores)
    assert read_best(trained[0]).step == read_best(tmp_path / "parts").step


def test_a_run_that_gets_no_better_ends_with_its_best_weights_and_stays_ended(given, tmp_path):
    still = ["--set", "training.learning_rate=1e-12", "--set", "training.end_learning_rate=0"]
    ended = train(
        given, tmp_path / "run", "--patience", 2, "--steps", 40, "--set", "trainer.validate_every=1", *still
    )
    assert ended.exit_code == 0, ended.output
    assert "Ended after step 3 of 40: the validation Dice has not improved for 2 validations" in " ".join(
        ended.output.split()
    )
    assert newest_checkpoint(tmp_path / "run").step == 3
    assert (read_best(tmp_path / "run").step, len(rows(tmp_path / "run"))) == (1, 3)
    again = call("segmenter", "-o", tmp_path / "run")
    assert again.exit_code == 0, again.output
    assert newest_checkpoint(tmp_path / "run").step == 3


def test_a_start_from_meduet_begins_with_its_encoder_and_one_from_scratch_does_not(given, tmp_path):
    encoder = load_model(given / "model", "cpu").meduet.encoder.transformer.state_dict()
    name = next(name for name in encoder if name.endswith("weight") and encoder[name].ndim == 2)
    same = {}
    for start in ("meduet", "scratch"):
        done = train(
            given, tmp_path / start, "--start", start, "--styles", "off", "--steps", 1, "--set",
            "training.learning_rate=1e-12", "--set", "training.end_learning_rate=0",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        weight = newest_checkpoint(tmp_path / start).tensors[f"objective.student.encoder.transformer.{name}"]
        same[start] = torch.allclose(weight, encoder[name], atol=1e-6)
        assert settings(tmp_path / start)["objective"]["augmentation"] is None
    assert same == {"meduet": True, "scratch": False}


def test_sequences_of_a_patient_are_read_at_once(given, tmp_path):
    records = []
    for number, sequence in enumerate(("T1", "T2")):
        save_labelled(tmp_path, sequence, number, {"1": "organ"}, "MR")
        records.append(record(sequence, 0, modality="MR", sequence=sequence, labels={"1": "organ"}))
    (tmp_path / "index.json").write_text(json.dumps(records))
    done = train(given, tmp_path / "run", "--set", "data.sequences=[T1, T2]", "--steps", 1, data=tmp_path)
    assert done.exit_code == 0, done.output
    assert settings(tmp_path / "run")["network"]["latent_channels"] == 8
    assert settings(tmp_path / "run")["objective"]["augmentation"] is None
    assert not (tmp_path / "run" / "results.json").exists()  # nothing to test on
    model = shutil.copytree(given / "model", tmp_path / "model")
    assert call("export-segmenter", tmp_path / "run", "--into", model).exit_code == 0
    assert load_model(model, "cpu").card.segmenter.sequences == ("T1", "T2")
    first, second = (read_volume(tmp_path / f"{name}.nii.gz", modality="MR") for name in ("T1", "T2"))
    assert segment(SegmentRequest(first, together=(second,), model=model)).labels.shape == first.voxels.shape
    refused = train(
        given, tmp_path / "other", "--set", "data.sequences=[T1, T2]", "--styles", "all", data=tmp_path
    )
    assert "cannot be shown in other styles" in " ".join(refused.output.split())


def test_a_folder_of_nnunet_is_read_as_it_is(given, tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    for number in (0, 2):
        shutil.copy(given / f"{number}.nii.gz", tmp_path / "imagesTr" / f"case{number}_0000.nii.gz")
        shutil.copy(given / f"{number}_seg.nii.gz", tmp_path / "labelsTr" / f"case{number}.nii.gz")
    described = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1, "bone": 4}}
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    done = train(given, tmp_path / "run", "--steps", 1, data=tmp_path)
    assert done.exit_code == 0, done.output
    assert settings(tmp_path / "run")["objective"]["names"] == ["background", "organ", "bone"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model", "nowhere"], "no card.json"),
        (["--model", "shallow"], "no segmenter can read this model's latents"),
        (["--model", "styleless"], "knows no styles of CT"),
        (["--data", "unlabelled"], "None of the 1 scans to train on has labels"),
        (["--set", "data.classes=[liver]"], "no scan to train on has labels called liver"),
        (["--set", "data.classes={organ: 3}"], "data.classes.organ cannot be 3"),
        (["--set", "data.clases=[organ]"], "there is no option data.clases; did you mean classes?"),
        (["--set", "training.network.hed=light"], "training.network.hed; did you mean head?"),
        (["--set", "training.objective.ema_decay=2"], "ema_decay must be from 0"),
        (["--set", "training.objective.augmentation={probability: 0.5}"], "something else than styles: auto"),
        (["--patience", -1], "patience cannot be -1"),
        (["--set", "hardware.strategy=fsdp"], "Use ddp"),
        (["--modality", "MR"], "None of the 0 scans may be trained on"),
    ],
)  # fmt: skip
def test_wrong_input_gives_a_message_before_any_training(given, tmp_path, words, sentence):
    words = [
        given / word if word in ("nowhere", "shallow", "styleless", "unlabelled") else word for word in words
    ]
    refused = train(given, tmp_path / "run", *words)
    assert refused.exit_code == 2, refused.output
    assert sentence in " ".join(refused.output.split())
    assert "Traceback" not in refused.output
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_class_of_which_no_scan_shows_a_voxel_is_named(given, tmp_path):
    (tmp_path / "names.yaml").write_text("1: organ\n4: bone\n9: spleen\n")
    refused = train(given, tmp_path / "run", "--names", tmp_path / "names.yaml")
    assert refused.exit_code == 2, refused.output
    assert "No scan to train on shows a voxel of spleen" in " ".join(refused.output.split())


def test_a_run_with_other_classes_does_not_resume(given, trained):
    refused = train(given, trained[0], "--set", "data.classes=[organ]")
    assert refused.exit_code == 2
    assert "holds a run with other settings" in refused.output


def test_the_papers_preset_is_that_of_its_supplement():
    paper = recipes.paper()
    assert (paper.learning_rate, paper.weight_decay, paper.batch) == (2e-4, 1e-5, 4)
