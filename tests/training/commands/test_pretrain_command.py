"""`meduet-pretrain` on the command line: run, stop, resume, export, and messages for wrong input."""

import json
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from small import WAVELET, network, random_windows
from tiny import save_phantom, save_tiny_model
from typer.testing import CliRunner

from meduet_training.commands.pretrain import app
from meduet_training.data.caches.latent_spec import tokenizer_sha256
from meduet_training.data.caches.latent_windows import load_windows, save_windows
from meduet_training.data.sources.voxels import VoxelSource
from meduet_training.data.sources.windows import WindowSource
from meduet_training.data.tokenizer_files import save_tokenizer
from meduet_training.engine.checkpoints import FOLDER, newest_checkpoint
from meduet_training.tasks.pretraining import presets as recipes
from napari_meduet.models.loading import load_model
from napari_meduet.tokenizers.wavelet import WaveletConfig, WaveletTokenizer


@pytest.fixture(autouse=True)
def narrow_preset(monkeypatch):
    """Make the preset `tiny` smaller: one narrow block on the full grid of 6 x 6 x 6 tokens."""
    narrow = replace(recipes.tiny(), network=network(grid=(6, 6, 6)), batch=2)
    monkeypatch.setitem(recipes.PRESETS, "tiny", lambda: narrow)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder with a tokenizer, and windows that name it as their tokenizer."""
    folder = tmp_path_factory.mktemp("given")
    torch.manual_seed(0)
    for name in ("tokenizer", "other"):
        (folder / name).mkdir()
        tokenizer = WaveletTokenizer(WAVELET)
        save_tokenizer(tokenizer, folder / name)
        windows = random_windows(num_anatomies=2, side=24, tokenizer_sha256=tokenizer_sha256(tokenizer))
        save_windows(windows, folder / f"{name}.safetensors")
    (folder / "wide").mkdir()
    save_tokenizer(WaveletTokenizer(WaveletConfig(channels=8, width=8)), folder / "wide")
    (folder / "damaged.safetensors").write_bytes(b"\x08")
    return folder


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def run(given, output, *more):
    windows = ["--windows", given / "tokenizer.safetensors", "--tokenizer", given / "tokenizer"]
    options = ["--steps", 4, "--device", "cpu", "--set", "hardware.workers=0"]
    return call("run", *windows, "-o", output, *options, *more)


def test_a_stopped_run_resumes_with_the_same_command(given, tmp_path, monkeypatch):
    assert run(given, tmp_path / "whole").exit_code == 0
    with monkeypatch.context() as patch:
        choose = WindowSource.choose

        def choose_and_signal(self, step, count):
            if step == 2:
                signal.raise_signal(signal.SIGTERM)
            return choose(self, step, count)

        patch.setattr(WindowSource, "choose", choose_and_signal)
        stopped = run(given, tmp_path / "parts")
    assert stopped.exit_code == 75
    assert "Stopped after step 3 of 4; the same command goes on from there." in stopped.output
    assert run(given, tmp_path / "parts").exit_code == 0
    whole, parts = (newest_checkpoint(tmp_path / name).tensors for name in ("whole", "parts"))
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    rows = [json.loads(line)["step"] for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert rows == [0, 3]


def test_options_change_the_configuration(given, tmp_path):
    done = run(
        given, tmp_path, "--objective", "paper", "--batch", 4, "--without", "siqc", "--without", "mftd"
    )
    assert done.exit_code == 0, done.output
    words = newest_checkpoint(tmp_path).record["settings"]["training"]
    assert words["batch"] == 4
    assert words["objective"]["without"] == ["siqc", "mftd"]
    assert (words["objective"]["pairing"], words["objective"]["full_weight"]) == ("flip", 0.0)


def test_a_run_becomes_a_model_that_the_plugin_loads(given, tmp_path):
    assert run(given, tmp_path / "run", "--steps", 1).exit_code == 0
    exported = call("export", tmp_path / "run", "-o", tmp_path / "mine")
    assert exported.exit_code == 0, exported.output
    assert "the network after 1 of 1 steps" in " ".join(exported.output.split())
    model = load_model(tmp_path / "mine", "cpu")
    assert (model.card.name, model.card.training["steps_taken"]) == ("mine", 1)
    assert model.known_styles == {}
    trained = newest_checkpoint(tmp_path / "run").tensors
    for name, weight in model.meduet.state_dict().items():
        assert torch.equal(weight, trained[f"objective.student.{name}"].half().float()), name
    again = call("export", tmp_path / "run", "-o", tmp_path / "mine")
    assert again.exit_code == 2
    assert "exists already" in again.output
    assert call("export", tmp_path / "run", "-o", tmp_path / "mine", "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("pretext", "exit_code", "words"), [("mae", 0, "Wrote"), ("mdae", 2, "more than a MeDUET network")]
)
def test_another_pretext_trains_in_the_same_loop(given, tmp_path, pretext, exit_code, words):
    done = run(given, tmp_path, "--pretext", pretext, "--steps", 2)
    assert done.exit_code == 0, done.output
    found = newest_checkpoint(tmp_path)
    assert found.step == 2
    assert all(tensor.isfinite().all() for tensor in found.under("objective.").values())
    exported = call("export", tmp_path, "-o", tmp_path / "model")
    assert exported.exit_code == exit_code, exported.output
    assert words in " ".join(exported.output.split())


def test_masked_diffusion_on_voxels_needs_scans_alone(tmp_path, monkeypatch):
    save_cohort(tmp_path)
    sizes = ["training.network.grid=[2,2,1]", "training.network.widths=[4,8]", "training.batch=2"]
    sizes += ["training.network.num_blocks=[1,1]", f"data.cache_dir={tmp_path}/made", "hardware.workers=0"]
    command = ["run", "--pretext", "mdae-voxel", "--data", tmp_path, "--device", "cpu", "--steps", 2]
    command += [word for size in sizes for word in ("--set", size)]
    whole = call(*command, "-o", tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    with monkeypatch.context() as patch:
        choose = VoxelSource.choose

        def choose_and_signal(self, step, count):
            if step == 0:
                signal.raise_signal(signal.SIGTERM)
            return choose(self, step, count)

        patch.setattr(VoxelSource, "choose", choose_and_signal)
        stopped = call(*command, "-o", tmp_path / "parts")
    assert stopped.exit_code == 75, stopped.output
    assert call("run", "-o", tmp_path / "parts").exit_code == 0  # the folder holds the other options
    whole, parts = (newest_checkpoint(tmp_path / name).tensors for name in ("whole", "parts"))
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["data"]["tokenizer_sha256"] is None
    refused = call("export", tmp_path / "parts", "-o", tmp_path / "model")
    assert refused.exit_code == 2
    assert "holds no MeDUET network" in " ".join(refused.output.split())
    assert not (tmp_path / "model").exists()


def save_cohort(folder):
    """A CT and an MR of two sites, and the list of them."""
    records = []
    for modality in ("CT", "MR"):
        save_phantom(folder / f"{modality}.nii.gz", modality)
        records.append(
            {
                "path": f"{modality}.nii.gz", "domain": f"site-{modality}", "modality": modality,
                "sequence": None, "patient_group": modality, "split": "train", "licence": "CC0",
                "licence_grade": "A",
            }
        )  # fmt: skip
    (folder / "index.json").write_text(json.dumps(records))


def test_from_scans_to_a_model_that_knows_their_styles(given, tmp_path, monkeypatch):
    monkeypatch.setattr("meduet_training.tasks.pretraining.inputs.GROUPS", 1)
    save_cohort(tmp_path)
    command = (
        "run",
        "--data",
        tmp_path,
        "--set",
        f"data.cache_dir={tmp_path}/cache",
        "--tokenizer",
        given / "tokenizer",
    )
    done = call(*command, "-o", tmp_path / "run", "--steps", 1, "--device", "cpu")
    assert done.exit_code == 0, done.output
    exported = call("export", tmp_path / "run", "-o", tmp_path / "mine", "--data", tmp_path)
    assert exported.exit_code == 0, exported.output
    model = load_model(tmp_path / "mine", "cpu")
    assert set(model.known_styles) == {"site-CT", "site-MR"}
    assert {source.domain: source.num_scans for source in model.card.training_data} == {
        "site-CT": 1,
        "site-MR": 1,
    }


def test_a_models_tokenizer_serves_as_well(given, tmp_path):
    model = save_tiny_model(tmp_path / "model")
    windows = random_windows(
        2, side=24, tokenizer_sha256=tokenizer_sha256(load_model(model, "cpu").tokenizer)
    )
    save_windows(windows, tmp_path / "windows.safetensors")
    done = call(
        "run", "--windows", tmp_path / "windows.safetensors", "--tokenizer", model,
        "-o", tmp_path / "run", "--steps", 1, "--device", "cpu",
    )  # fmt: skip
    assert done.exit_code == 0, done.output


def test_a_run_goes_on_from_its_folder_alone(given, tmp_path):
    assert run(given, tmp_path, "--steps", 1, "--set", "training.clip=0.5").exit_code == 0
    kept = (tmp_path / "config.yaml").read_text()
    again = call("run", "-o", tmp_path)
    assert again.exit_code == 0, again.output
    assert (tmp_path / "config.yaml").read_text() == kept
    assert newest_checkpoint(tmp_path).record["settings"]["training"]["clip"] == 0.5


def test_a_configuration_file_goes_under_the_options(given, tmp_path):
    words = {
        "data": {"windows": str(given / "tokenizer.safetensors"), "tokenizer": str(given / "tokenizer")},
        "training": {"batch": 4, "objective": {"total_steps": 2}},
        "hardware": {"device": "cpu", "workers": 0},
    }
    (tmp_path / "mine.yaml").write_text(json.dumps(words))  # JSON is YAML
    done = call("run", "--config", tmp_path / "mine.yaml", "--steps", 1, "-o", tmp_path / "run")
    assert done.exit_code == 0, done.output
    found = newest_checkpoint(tmp_path / "run")
    assert (found.step, found.record["settings"]["training"]["batch"]) == (1, 4)


def test_one_domain_is_refused_and_a_domain_of_one_scan_is_told(given, tmp_path):
    told = run(given, tmp_path / "run", "--steps", 1)
    assert "2 of 3 domains have one scan each (site a, site b)" in " ".join(told.output.split())
    windows = load_windows(given / "tokenizer.safetensors")
    windows = replace(windows, domain=windows.domain * 0, domains=("only",))
    save_windows(windows, tmp_path / "one.safetensors")
    words = ["run", "--windows", tmp_path / "one.safetensors", "--tokenizer", given / "tokenizer"]
    refused = call(*words, "-o", tmp_path / "one", "--device", "cpu")
    assert refused.exit_code == 2
    assert "All scans are of one domain (only)" in " ".join(refused.output.split())
    assert not (tmp_path / "one").exists()


WINDOWS = ["--windows", "tokenizer.safetensors"]
TOKENIZER = ["--tokenizer", "tokenizer"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([*TOKENIZER], "Give one of --cache"),
        ([*WINDOWS, "--data", ".", *TOKENIZER], "Give one of --cache"),
        (["--windows", "gone.safetensors", *TOKENIZER], "gone.safetensors: there is no such file"),
        (["--windows", "damaged.safetensors", *TOKENIZER], "damaged.safetensors: no latent windows, damaged"),
        (["--data", "gone", *TOKENIZER], "gone holds no index.json"),
        ([*WINDOWS, "--tokenizer", "gone"], "gone: there is no such tokenizer"),
        ([*WINDOWS, "--tokenizer", "wide"], "4 latent channels, but the tokenizer writes 8"),
        ([*WINDOWS, "--tokenizer", "other"], "encoded by another tokenizer"),
        ([*WINDOWS, *TOKENIZER, "--batch", "1"], "must be even and at least 2; got 1"),
        ([*WINDOWS, *TOKENIZER, "--batch", "3"], "must be even and at least 2; got 3"),
        ([*WINDOWS, *TOKENIZER, "--steps", "0"], "total_steps must be at least 1; got 0"),
        ([*WINDOWS, *TOKENIZER, "-o", "tokenizer.safetensors"], "this folder cannot be created"),
        ([*WINDOWS, *TOKENIZER, "-o", "other"], "holds the tokenizer of another run"),
        ([*WINDOWS, *TOKENIZER, "--preset", "huge"], "'huge' is not one of"),
        ([*WINDOWS, *TOKENIZER, "--without", "style"], "cannot be 'style': input should be 'domain'"),
        ([*WINDOWS, *TOKENIZER, "--epochs", "3"], "No such option"),
        ([*WINDOWS, *TOKENIZER, "--config", "gone.yaml"], "gone.yaml: the configuration cannot be read"),
        ([*WINDOWS, *TOKENIZER, "--set", "training.bach=2"], "no option training.bach; did you mean batch?"),
        ([*WINDOWS, *TOKENIZER, "--set", "hardware.accumulate=3"], "does not split into pairs for 1 process"),
        ([*WINDOWS, *TOKENIZER, "--set", "training.network.grid=[3,3,3]"], "4 x 24 x 24 x 24 numbers"),
        ([*TOKENIZER, "--cache", "tokenizer"], "tokenizer"),
    ],
)
def test_wrong_input_gives_a_message(given, monkeypatch, words, sentence):
    monkeypatch.chdir(given)
    output = [] if "-o" in words else ["-o", "run"]
    result = call("run", *words, *output, "--device", "cpu")
    assert result.exit_code == 2
    told = " ".join(result.output.replace("│", " ").split())
    assert sentence in told
    assert "Traceback" not in told
    assert not (given / "run" / FOLDER).exists()


def test_a_run_of_other_settings_is_not_gone_on_with(given, tmp_path):
    assert run(given, tmp_path, "--steps", 1).exit_code == 0
    before = newest_checkpoint(tmp_path).path.read_bytes()
    refused = run(given, tmp_path, "--steps", 2)
    assert refused.exit_code == 2
    assert "other settings (objective.total_steps)" in refused.output
    assert newest_checkpoint(tmp_path).path.read_bytes() == before


@pytest.mark.parametrize("kept", [FOLDER, "tokenizer.safetensors"])
def test_half_a_run_is_not_exported(given, tmp_path, kept):
    assert run(given, tmp_path / "run", "--steps", 1).exit_code == 0
    for file in (tmp_path / "run").iterdir():
        if file.name != kept:
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    refused = call("export", tmp_path / "run", "-o", tmp_path / "model")
    assert refused.exit_code == 2
    assert "run: holds no" in refused.output
    assert not (tmp_path / "model").exists()
