"""MAISI's tokenizer, at a small size with random weights, from its weight file to a swap and to the dock."""

import json
from dataclasses import replace

import nibabel as nib
import pytest
import torch
from caching import save_cohort, save_index
from safetensors.torch import save_file
from small import network
from typer.testing import CliRunner

import napari_meduet.cli
from meduet_training.commands import cache, pretrain
from meduet_training.tasks.pretraining import presets
from napari_meduet.models.folders import installed_models
from napari_meduet.models.loading import load_model
from napari_meduet.tokenizers import maisi
from napari_meduet.volumes.intensity import CT_SOFT, CT_WIDE

pytest.importorskip("monai")
SMALL = maisi.MaisiConfig(num_channels=(4, 4, 4), num_res_blocks=(1, 1, 1), norm_num_groups=2)


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory):
    """Weights as NVIDIA publishes them, for a smaller network."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("maisi") / "autoencoder.pt"
    torch.save(maisi.MaisiTokenizer(SMALL).network.state_dict(), path)
    return path


@pytest.fixture
def cohort(tmp_path):
    return save_index(save_cohort(tmp_path / "scans", 4)[1:])


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    """The published sizes of MAISI and the preset of MeDUET, both smaller."""
    monkeypatch.setattr(maisi, "MaisiConfig", lambda: SMALL)
    tiny = replace(presets.tiny(), network=network(), batch=2)
    monkeypatch.setitem(presets.PRESETS, "tiny", lambda: tiny)


def call(app, *words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, (done.output, done.exception)


def pretrain_on(cohort, weight_file, folder, *cache_options):
    """Cache, run and export; returns the model folder."""
    call(cache.app, cohort, "-o", folder / "latents", "--tokenizer", weight_file, *cache_options)
    call(
        pretrain.app, "run", "--cache", folder / "latents", "--tokenizer", weight_file,
        "-o", folder / "run", "--steps", 2, "--device", "cpu", "--set", "hardware.workers=0",
    )  # fmt: skip
    call(pretrain.app, "export", folder / "run", "-o", folder / "models" / "mine", "--data", cohort)
    return folder / "models" / "mine"


def test_from_the_weight_file_to_a_swap_and_the_list_of_models(
    cohort, weight_file, tmp_path, monkeypatch, qtbot
):
    folder = pretrain_on(cohort, weight_file, tmp_path)

    model = load_model(folder, "cpu")
    assert (model.tokenizer.name, model.tokenizer.config) == ("maisi", SMALL)
    assert model.card.profiles["CT"].knots == CT_WIDE.knots  # MAISI was trained with it
    assert set(model.known_styles) == {"site a", "site b"}

    scans, output = [cohort / f"smith_john_{number}.nii.gz" for number in (2, 3)], tmp_path / "out.nii.gz"
    call(napari_meduet.cli.app, "swap", *scans, "-o", output, "--model", folder)
    assert nib.load(output).shape == nib.load(scans[0]).shape
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["model"]["sha256"] == model.sha256

    from napari_meduet.gui.common.model_box import ModelBox

    monkeypatch.setenv("MEDUET_MODELS", str(folder.parent))
    assert installed_models() == [("mine", folder)]
    box = ModelBox()
    qtbot.addWidget(box)
    box.choose(folder)
    assert box.card().tokenizer.name == "maisi"


def test_the_intensity_profile_of_the_cache_reaches_the_card(cohort, weight_file, tmp_path):
    folder = pretrain_on(cohort, weight_file, tmp_path, "--ct-profile", "ct-soft")
    description = json.loads((tmp_path / "latents" / "cache.json").read_text())
    assert description["spec"]["profiles"]["CT"]["name"] == "ct-soft"
    profile = load_model(folder, "cpu").card.profiles["CT"]
    assert (profile.name, profile.knots) == ("ct-soft", CT_SOFT.knots)


def test_a_safetensors_file_serves_as_well(weight_file, tmp_path):
    from meduet_training.data.tokenizer_files import load_tokenizer, save_tokenizer

    save_file(torch.load(weight_file, weights_only=True), tmp_path / "published.safetensors")
    tokenizer, spec = load_tokenizer(tmp_path / "published.safetensors")
    save_tokenizer(tokenizer, tmp_path)
    again, same_spec = load_tokenizer(tmp_path / "tokenizer.safetensors")
    assert same_spec == spec == load_tokenizer(weight_file)[1] == load_tokenizer(tmp_path)[1]
    volume = torch.rand(1, 1, 8, 8, 8)
    with torch.inference_mode():
        assert torch.equal(again.encode(volume)[0], tokenizer.encode(volume)[0])
