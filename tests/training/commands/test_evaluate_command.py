"""`meduet-evaluate` from the command line: factors of a run, a checkpoint, a model; and every mistake."""

import json
import shutil
from dataclasses import asdict, replace

import caching
import pytest
import torch
import watching
from PIL import Image
from tiny import MEDUET, save_phantom, save_tiny_model
from typer.testing import CliRunner

from meduet_training.commands.evaluate import app
from meduet_training.data.sources.latents import CacheSource
from meduet_training.data.tokenizer_files import save_tokenizer
from meduet_training.engine.checkpoints import save_checkpoint
from meduet_training.engine.config import TrainingConfig
from meduet_training.engine.resume import RunSettings, record_of
from meduet_training.evaluation.factors.samples import collect_factor_samples
from meduet_training.evaluation.factors.validation import weights_sha256
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import Objective, ObjectiveConfig
from napari_meduet.models.loading import load_model

SITES = ("site a", "site b")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Two sites with two patients each, held out, a scan to train on, a model, and a run of its weights."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "scans").mkdir()
    records = []
    for number, site in enumerate((*SITES, *SITES, "site a")):
        save_phantom(folder / "scans" / f"{number}.nii.gz", seed=number)
        records.append(
            {
                "path": f"{number}.nii.gz", "domain": site, "modality": "CT", "sequence": None,
                "patient_group": f"Smith {number}", "split": "train" if number == 4 else "test",
                "licence": "CC0", "licence_grade": "A",
            }
        )  # fmt: skip
    (folder / "scans" / "index.json").write_text(json.dumps(records))
    model = load_model(save_tiny_model(folder / "model"), "cpu")
    (folder / "run").mkdir()
    save_tokenizer(model.tokenizer, folder / "run")
    network = MeDUETConfig(**{**MEDUET, "grid": tuple(MEDUET["grid"])})
    objective = Objective(network, ObjectiveConfig.corrected(total_steps=9))
    objective.student.load_state_dict(model.meduet.state_dict())
    settings = RunSettings(
        training=asdict(TrainingConfig(network=network, objective=objective.config)),
        data_sha256="0",
        domains=list(SITES),
        latent_mean=model.latents.mean.flatten().tolist(),
        latent_std=model.latents.std.flatten().tolist(),
    )
    tensors = {f"objective.{name}": value for name, value in objective.state_dict().items()}
    save_checkpoint(folder / "run", 3, tensors, record_of(settings))
    objective.student.decoder.prediction.bias.data.add_(1)
    objective.student.disentangle.style.weight.data.mul_(2)
    tensors = {f"objective.{name}": value for name, value in objective.state_dict().items()}
    save_checkpoint(folder / "run", 6, tensors, record_of(settings))
    voxels = replace(settings, training=settings.training | {"network": {"widths": [8], "channels": 1}})
    save_checkpoint(folder / "voxels", 1, {"objective.x": torch.zeros(1)}, record_of(voxels))
    return folder


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def factors(given, network, output, *more):
    return call("factors", given / network, "--data", given / "scans", "-o", output, "--device", "cpu", *more)


def found(folder):
    return json.loads((folder / "factors.json").read_text())


def test_a_models_factors_are_measured_drawn_and_told(given, tmp_path):
    done = factors(given, "model", tmp_path / "out", "--seed", 7)
    assert done.exit_code == 0, done.output
    data = found(tmp_path / "out")
    assert data["seed"] == 7
    assert (data["num_patients"], set(data["domains"])) == (4, set(SITES))
    assert data["extractor_sha256"] == load_model(given / "model", "cpu").sha256
    probe = data["factors"]["style"]["probe"]
    assert f"{probe['accuracy']['num_samples']} / 4" in done.output
    assert "chance 0.500" in done.output
    for name in ("style.png", "content.png"):
        assert min(Image.open(tmp_path / "out" / name).size) > 500
    everything = done.output + (tmp_path / "out" / "factors.csv").read_text()
    assert "Smith" not in everything


def test_a_run_a_checkpoint_and_a_model_of_the_same_weights_agree(given, tmp_path):
    checkpoint = "run/checkpoints/step-00000003.safetensors"
    for number, network in enumerate(("model", checkpoint, "run")):
        assert factors(given, network, tmp_path / str(number)).exit_code == 0
    model, same, later = (found(tmp_path / str(number)) for number in range(3))
    assert same["factors"] == model["factors"]
    assert same["extractor_sha256"] == weights_sha256(load_model(given / "model", "cpu").meduet)
    assert later["extractor_sha256"] != same["extractor_sha256"]
    rows = [(tmp_path / str(number) / "factors.csv").read_text() for number in range(3)]
    assert rows[2] != rows[1]  # the newest checkpoint's styles are twice as long


def test_a_scan_that_cannot_be_read_is_left_out_and_told(given, tmp_path):
    shutil.copytree(given / "scans", tmp_path / "scans")
    (tmp_path / "scans" / "2.nii.gz").write_bytes(b"\x1f\x8b damaged")
    done = call("factors", given / "model", "--data", tmp_path / "scans", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "Scan 3 of 4 is left out: 2.nii.gz" in " ".join(done.output.split())
    assert found(tmp_path / "out")["num_patients"] == 3
    assert "1 left out" in found(tmp_path / "out")["source"]


def test_splits_are_chosen(given, tmp_path):
    assert factors(given, "model", tmp_path, "--split", "all").exit_code == 0
    assert found(tmp_path)["num_patients"] == 5
    alone = factors(given, "model", tmp_path, "--split", "train", "--overwrite")
    assert alone.exit_code == 0
    assert "A probe needs two domains with two patients each" in " ".join(alone.output.split())
    assert found(tmp_path)["factors"]["style"]["probe"] is None


def test_an_analysis_is_not_replaced_unasked(given, tmp_path):
    (tmp_path / "factors.json").write_text("mine")
    refused = factors(given, "model", tmp_path)
    assert refused.exit_code == 2
    assert "of an earlier evaluation" in refused.output
    assert (tmp_path / "factors.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["scans", "--data", "scans"], "scans: this is neither a model nor a run nor a checkpoint of a run"),
        (["gone", "--data", "scans"], "gone: this is neither a model nor a run nor a checkpoint of a run"),
        (["voxels", "--data", "scans"], "holds no MeDUET network, so it has no content and style"),
        (["model", "--data", "gone"], "gone holds no index.json"),
        (["model", "--data", "model"], "model holds no index.json"),
        (["model", "--data", "scans", "--split", "some"], "'some' is not one of"),
        (["model"], "Missing option '--data'"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(given, monkeypatch, words, sentence):
    monkeypatch.chdir(given)
    result = call("factors", *words, "-o", "out")
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.replace("│", " ").split())
    assert "Traceback" not in result.output
    assert not list(given.glob("out/*"))


def test_a_report_is_made_anew(tmp_path):
    folder = tmp_path / "run"
    watching.run(folder, last=20).close("stopped")
    assert not (folder / "report.html").exists()
    done = call("report", folder)
    assert done.exit_code == 0, done.output
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    refused = call("report", tmp_path)
    assert refused.exit_code == 2
    assert "holds no run.json" in refused.output


# --- a latent cache


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """A cache that holds back one scan, and the model whose tokenizer wrote it."""
    folder = tmp_path_factory.mktemp("cached")
    model = caching.tokenizer_folder(folder / "model")
    caching.fill(folder / "cache", model, caching.save_cohort(folder / "scans"))
    return folder


def of_cache(cached, network, output, *more):
    words = ("factors", cached / network, "--data", cached / "cache", "-o", output, "--device", "cpu")
    return call(*words, *more)


def test_a_cache_gives_crops_of_what_it_holds_back(cached, tmp_path):
    done = of_cache(cached, "model", tmp_path, "--crops", 12)
    assert done.exit_code == 0, done.output
    data = found(tmp_path)
    assert (data["num_samples"], data["num_patients"], data["domains"]) == (12, 1, {"site a": 12})
    assert "held-out" in data["source"]


def test_crops_of_a_cache_are_standardised_as_the_network_was_trained(cached):
    """The cache's statistics are not the model's; what the network sees is what the model's card says."""
    model = load_model(cached / "model", "cpu")
    source = CacheSource(cached / "cache", 0, side=8)
    latent = source.validation_crops(8, 0).latent
    mean, std = (numbers.view(1, -1, 1, 1, 1) for numbers in source.statistics())
    seen = []
    encode = model.meduet.encode
    model.meduet.encode = lambda given: (seen.append(given), encode(given))[1]
    try:
        collect_factor_samples(model, cached / "cache", "test", 8, 0, print)
    finally:
        del model.meduet.encode
    assert torch.allclose(seen[0] * 0.5 + 0.1, latent * std + mean, atol=1e-5)  # the card's numbers


def test_a_cache_that_does_not_fit_is_refused(cached, tmp_path):
    caching.tokenizer_folder(tmp_path / "other", seed=1)
    refused = of_cache(cached, tmp_path / "other", tmp_path / "out")
    assert refused.exit_code == 2
    assert "written by another tokenizer" in " ".join(refused.output.split())
    refused = of_cache(cached, "model", tmp_path / "out", "--split", "all")
    assert "a latent cache gives only crops of its test split" in " ".join(refused.output.split())
    caching.fill(tmp_path / "cache", cached / "model", caching.save_cohort(tmp_path / "scans", count=2))
    refused = call("factors", cached / "model", "--data", tmp_path / "cache", "-o", tmp_path / "out")
    assert refused.exit_code == 2
    assert "this cache has no scan of the test split" in " ".join(refused.output.split())
