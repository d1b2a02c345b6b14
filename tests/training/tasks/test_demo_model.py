"""`meduet-train demo` from two scans to a swap, with tiny sizes in every stage."""

import json
from dataclasses import replace

import numpy as np
import pytest
from small import WAVELET, network
from tiny import save_phantom
from typer.testing import CliRunner

from meduet_training.commands.train import app
from meduet_training.tasks.pretraining import demo_recipe as demo
from napari_meduet.models.loading import load_model
from napari_meduet.pipelines.requests import SwapRequest
from napari_meduet.pipelines.style_swap.session import swap
from napari_meduet.volumes.files import read_volume

ONE, OTHER = "site-soft", "site-sharp"
full_recipe = demo.demo


def tiny_recipe(device: str) -> demo.DemoRecipe:
    recipe = full_recipe(device)
    objective = replace(recipe.pretraining.objective, total_steps=2)
    return replace(
        recipe,
        tokenizer=replace(recipe.tokenizer, network=WAVELET, steps=4, batch=1, side=16, start_crops=4),
        pretraining=replace(
            recipe.pretraining, network=network(grid=(6, 6, 6)), objective=objective, batch=2
        ),
        groups=1,
    )


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    records = [
        {
            "path": save_phantom(folder / f"{domain}.nii.gz", "CT", seed=seed).name, "domain": domain,
            "modality": "CT", "sequence": None, "patient_group": domain, "split": "train",
            "licence": "CC BY 4.0", "licence_grade": "A",
        }
        for seed, domain in ((0, ONE), (3, OTHER))
    ]  # fmt: skip
    (folder / "index.json").write_text(json.dumps(records))
    return folder


def test_two_scans_become_a_model_that_swaps_them(scans, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "demo", tiny_recipe)
    command = [
        "demo",
        "--data",
        scans,
        "--cache",
        tmp_path / "cache",
        "-o",
        tmp_path / "model",
        "--device",
        "cpu",
    ]
    done = CliRunner().invoke(app, [str(word) for word in command])
    assert done.exit_code == 0, done.output
    model = load_model(tmp_path / "model", "cpu")
    assert set(model.known_styles) == {ONE, OTHER}
    assert model.card.domains[:2] == tuple(sorted((ONE, OTHER)))
    assert {source.licence for source in model.card.training_data} == {"CC BY 4.0"}
    assert set(model.card.training) == {"tokenizer", "pretraining"}

    content, style = scans / f"{ONE}.nii.gz", scans / f"{OTHER}.nii.gz"
    result = swap(SwapRequest(content, style, model=tmp_path / "model", device="cpu"))
    before = read_volume(content)
    np.testing.assert_array_equal(result.volume.affine, before.affine)
    assert result.volume.voxels.shape == before.voxels.shape
    assert (result.volume.voxels != before.voxels).mean() > 0.1

    # The second run trains nothing: it reads every stage from the cache.
    weights = (tmp_path / "model" / "meduet.safetensors").read_bytes()
    monkeypatch.setattr("meduet_training.tasks.pretraining.demo_model.run_tokenizer_training", None)
    monkeypatch.setattr("meduet_training.data.caches.windows.make_windows", None)
    again = CliRunner().invoke(app, [str(word) for word in command])
    assert again.exit_code == 0, again.output
    assert (tmp_path / "model" / "meduet.safetensors").read_bytes() == weights
