"""`meduet-train generator`: run, stop, resume, panels, export, and messages for wrong input."""

import json
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from small import network
from tiny import MEDUET, save_phantom, save_tiny_model
from typer.testing import CliRunner

from meduet_training.commands.train import app
from meduet_training.data.sources.factors import FactorSource
from meduet_training.engine.checkpoints import newest_checkpoint
from meduet_training.engine.config import TrainingConfig
from meduet_training.tasks.generator import presets as recipes
from napari_meduet.core.objective import ObjectiveConfig
from napari_meduet.core.synthesis.generator import GeneratorConfig
from napari_meduet.models.loading import load_model

NARROW = GeneratorConfig(
    grid=(2, 2, 2), width=24, depth=2, heads=2, content_width=6, style_width=6, prediction="data"
)


@pytest.fixture(autouse=True)
def narrow_preset(monkeypatch):
    """Make the preset `tiny` smaller. Its factor widths differ from the model; the command adapts them."""
    narrow = replace(recipes.tiny(), network=NARROW, batch=2)
    monkeypatch.setitem(recipes.PRESETS, "tiny", lambda: narrow)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Two models, scans of two domains, some of them in the test split, and a file that is not a scan."""
    folder = tmp_path_factory.mktemp("given")
    save_tiny_model(folder / "model")
    save_tiny_model(folder / "other", seed=1)
    records = []
    for number, (split, modality) in enumerate(
        [("train", "CT"), ("train", "CT"), ("train", "MR"), ("test", "CT"), ("test", "MR")]
    ):
        save_phantom(folder / f"{number}.nii.gz", modality, number, shape=(48, 44, 30))
        records.append(
            {
                "path": f"{number}.nii.gz",
                "domain": f"site {modality}",
                "patient_group": f"patient {number}",
                "modality": modality,
                "sequence": None,
                "split": split,
                "licence": "CC0",
                "licence_grade": "A",
            }
        )
    (folder / "bad.nii.gz").write_bytes(b"no scan")
    records.append({**records[0], "path": "bad.nii.gz"})
    (folder / "index.json").write_text(json.dumps(records))
    (folder / "no-scans").mkdir()
    return folder


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def train(given, output, *more):
    data = ["--model", given / "model", "--data", given, "--cache", given / "factors"]
    options = ["--steps", 4, "--device", "cpu", "--set", "hardware.workers=0"]
    return call("generator", *data, "-o", output, *options, *more)


@pytest.fixture(scope="module")
def trained(given, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        narrow = replace(recipes.tiny(), network=NARROW, batch=2)
        patch.setitem(recipes.PRESETS, "tiny", lambda: narrow)
        done = train(given, folder)
    assert done.exit_code == 0, done.output
    return folder, done.output


def test_a_stopped_run_resumes_with_the_same_command(given, trained, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        choose = FactorSource.choose

        def choose_and_signal(self, step, count):
            if step == 2:
                signal.raise_signal(signal.SIGTERM)
            return choose(self, step, count)

        patch.setattr(FactorSource, "choose", choose_and_signal)
        stopped = train(given, tmp_path / "parts")
    assert stopped.exit_code == 75
    assert "Stopped after step 3 of 4; the same command goes on from there." in stopped.output
    done = call("generator", "-o", tmp_path / "parts")  # the folder holds the other options
    assert done.exit_code == 0, done.output
    whole, parts = (newest_checkpoint(folder).tensors for folder in (trained[0], tmp_path / "parts"))
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


def test_an_unreadable_scan_is_left_out_with_a_message(trained):
    assert "Scan 4 of 4 is left out" in trained[1]
    assert "patient" not in trained[1]


def test_a_run_leaves_panels_of_held_out_scans_their_loss_and_a_report(trained):
    folder, _ = trained
    assert sorted(path.name for path in (folder / "panels").glob("step-00000004-*")) == [
        "step-00000004-CT.png",
        "step-00000004-MR.png",
    ]
    rows = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(row["loss"] > 0 for row in rows)
    assert "loss of the validation crops" in (folder / "report.html").read_text()
    assert "patient" not in (folder / "log.jsonl").read_text()


def test_a_warm_start_begins_with_the_encoder_and_a_cold_one_does_not(given, tmp_path):
    encoder = load_model(given / "model", "cpu").meduet.encoder.patch_embedding.weight
    same = {}
    for start in ("warm", "scratch"):
        done = train(
            given, tmp_path / start, "--start", start, "--set", "training.learning_rate=1e-12",
            "--set", "training.end_learning_rate=0", "--set", "trainer.validate_every=9",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        checkpoint = newest_checkpoint(tmp_path / start)
        weight = checkpoint.tensors["objective.student.patch_embedding.weight"]
        same[start] = torch.allclose(weight, encoder, atol=1e-6)
        assert checkpoint.record["settings"]["training"]["start"] == start
    assert same == {"warm": True, "scratch": False}


def test_an_exported_generator_is_the_average_of_the_run(given, trained, tmp_path):
    model = shutil.copytree(given / "model", tmp_path / "model")
    done = call("export-generator", trained[0], "--into", model)
    assert done.exit_code == 0, done.output
    loaded = load_model(model, "cpu")
    checkpoint = newest_checkpoint(trained[0])
    for name, weight in loaded.generator.state_dict().items():
        assert torch.equal(weight, checkpoint.tensors[f"objective.teacher.{name}"].half().float())
    assert loaded.generator.config.content_width == MEDUET["content_width"]
    assert loaded.card.generator_training["steps_taken"] == 4
    assert loaded.sha256 == load_model(given / "model", "cpu").sha256


def test_a_generator_of_another_model_is_not_exported(given, trained, tmp_path):
    model = shutil.copytree(given / "other", tmp_path / "other")
    refused = call("export-generator", trained[0], "--into", model)
    assert refused.exit_code == 2
    assert "reads the factors of another model" in refused.output
    assert load_model(model, "cpu").generator is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model", "nowhere"], "no card.json"),
        (["--data", "no-scans"], "holds no index.json"),
        (
            ["--set", "training.network.wide=3"],
            "there is no option training.network.wide; did you mean width?",
        ),
        (["--set", "training.objective.drop_style=2"], "drop_style is a probability from 0 to 1; got 2"),
        (["--set", "training.network.width=48"], "differ in width"),
        (
            ["--set", "training.network.grid=[9,9,9]"],
            "No scan is as large as a crop of the generator, 9 x 9 x 9",
        ),
        (["--set", "hardware.strategy=fsdp"], "Use ddp"),
        (["--batch", 0], "batch must be at least 1"),
    ],
)
def test_wrong_input_gives_a_message(given, tmp_path, words, sentence):
    words = [given / word if word in ("nowhere", "no-scans") else word for word in words]
    refused = train(given, tmp_path / "run", *words)
    assert refused.exit_code == 2, refused.output
    assert sentence in " ".join(refused.output.split())
    assert "Traceback" not in refused.output
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_with_another_start_does_not_resume(given, trained):
    refused = train(given, trained[0], "--start", "scratch")
    assert refused.exit_code == 2
    assert "holds a run with other settings (start)" in refused.output


def test_the_papers_preset_is_table_10():
    paper = recipes.paper()
    assert paper.network == GeneratorConfig.base()
    assert (paper.learning_rate, paper.betas, paper.batch) == (5e-5, (0.9, 0.999), 64)
    assert (paper.objective.total_steps, paper.objective.ema_decay) == (2_000_000, 0.9999)


def test_a_pretraining_has_no_warm_start():
    with pytest.raises(ValueError, match="start is for generators"):
        TrainingConfig(network=network(), objective=ObjectiveConfig.paper(), start="warm")
