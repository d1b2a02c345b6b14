"""`meduet-evaluate synthesis` on a minute generator: all reaches file, page and card; mistakes are told."""

import json

import pytest
import torch
from PIL import Image
from tiny import save_phantom, save_tiny_model
from typer.testing import CliRunner

from meduet_training.commands.evaluate import app
from napari_meduet.core.synthesis.generator import Generator, GeneratorConfig
from napari_meduet.models.card import read_card
from napari_meduet.models.saving import save_generator

MINUTE = GeneratorConfig(
    grid=(2, 2, 2), width=12, depth=1, heads=2, content_width=24, style_width=12, prediction="data"
)
SCANS = [("site a", "test"), ("site b", "test"), ("site a", "train"), ("site b", "train")]
MARKERS = "before\n<!-- metrics: synthesis -->\nold\n<!-- end of metrics: synthesis -->\nafter\n"


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A model with a generator of random weights, and two sites with a held-out scan each."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "scans").mkdir()
    records = []
    for number, (site, split) in enumerate(SCANS):
        save_phantom(folder / "scans" / f"{number}.nii.gz", seed=number)
        records.append(
            {
                "path": f"{number}.nii.gz", "domain": site, "modality": "CT", "sequence": None,
                "patient_group": f"Smith {number}", "split": split, "licence": "CC0", "licence_grade": "A",
            }
        )  # fmt: skip
    (folder / "scans" / "index.json").write_text(json.dumps(records))
    save_tiny_model(folder / "model")
    torch.manual_seed(0)
    generator = Generator(MINUTE)
    torch.nn.init.normal_(generator.prediction.weight, std=0.1)
    save_generator(folder / "model", MINUTE, generator.state_dict(), {})
    return folder


def call(given, output, *more, model="model"):
    words = ["synthesis", "--model", given / model, "--data", given / "scans", "-o", output]
    words += [
        "--cache",
        given / "cache",
        "-n",
        8,
        "--sampler",
        "euler",
        "--steps",
        1,
        "--device",
        "cpu",
        *more,
    ]
    return CliRunner().invoke(app, [str(word) for word in words])


def test_every_question_is_answered_and_says_by_whom(given, tmp_path):
    page, card = tmp_path / "page.md", read_card(given / "model")
    page.write_text(MARKERS)
    done = call(given, tmp_path / "out", "--document", page, "--card", "--seed", 3)
    assert done.exit_code == 0, done.output

    data = json.loads((tmp_path / "out" / "synthesis.json").read_text())
    assert set(data["sections"]) == {"quality", "memory", "style", "surface", "counterfactuals"}
    assert (data["num_crops"], data["seed"], data["extractor"]["name"]) == (8, 3, "pyramid 1")
    assert len(data["extractor"]["sha256"]) == len(data["generator_sha256"]) == 64
    for part in data["sections"].values():
        assert part["seed"] == 3
        for metric in part["metrics"]:
            assert metric["low"] <= metric["value"] <= metric["high"]
            assert metric["num_samples"] >= 1
    assert len(data["sections"]["surface"]["tables"][0]["rows"]) == 9

    text = page.read_text()
    assert "FID, generated to real" in text
    assert "chance 0.500, prior 0." in text
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "old" not in text
    for name in ("samples.png", "target_styles.png", "counterfactuals.png"):
        assert min(Image.open(tmp_path / "out" / name).size) > 100
    after = read_card(given / "model")
    assert after.sha256 == card.sha256
    assert set(after.metrics["synthesis"]) > {"quality", "extractor", "sampling"}
    assert "Smith" not in done.output + text + json.dumps(data)

    again = call(given, tmp_path / "out", "--seed", 3)
    assert again.exit_code == 2
    assert "--overwrite" in again.output


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--sampler", "ddpm"), "does not fit"),
        (("--sampler", "magic"), "sampler"),
        (("--wc", "-1"), "content_weight must be 0"),
        (("--extractor", "nowhere.pth"), "nowhere.pth: there is no such weight file"),
        (("--document", "nowhere.md"), "nowhere.md: this file does not exist"),
    ],
)
def test_what_cannot_work_is_told_before_it_begins(given, tmp_path, more, words):
    done = call(given, tmp_path / "out", *more)
    assert done.exit_code == 2, done.output
    assert words in done.output
    assert not list((tmp_path / "out").glob("*"))


def test_a_model_without_a_generator_is_told(given, tmp_path):
    save_tiny_model(given / "plain")
    done = call(given, tmp_path / "out", model="plain")
    assert done.exit_code == 2
    assert "has no generator" in done.output


def test_a_cohort_of_one_held_out_domain_is_told(given, tmp_path):
    records = json.loads((given / "scans" / "index.json").read_text())
    scans = tmp_path / "scans"
    scans.symlink_to(given / "scans")
    for record in records:
        record["path"] = f"scans/{record['path']}"
        record["domain"] = "site a"
    (tmp_path / "index.json").write_text(json.dumps(records))
    done = call(given, tmp_path / "out", "--data", tmp_path)
    assert done.exit_code == 2
    assert "no style can be changed" in " ".join(done.output.split())
