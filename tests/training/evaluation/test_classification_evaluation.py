"""`meduet-evaluate classification` on a minute classifier: files, card and page; mistakes are told."""

import json

import pytest
from tiny import save_phantom, save_tiny_classifier, save_tiny_model
from typer.testing import CliRunner

from meduet_training.commands.evaluate import app
from napari_meduet.models.card import read_card
from napari_meduet.pipelines.classification import classify
from napari_meduet.pipelines.requests import ClassifyRequest

MARKERS = "before\n<!-- metrics: classification -->\nformer\n<!-- end of metrics: classification -->\nafter\n"
SCANS = (("train", "benign"), ("test", "benign"), ("test", "malignant"), ("test", "unclear"), ("test", None))


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A model with a classifier of random weights, and scans of whom a column tells the diagnosis."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "scans").mkdir()
    records = []
    for number, (split, diagnosis) in enumerate(SCANS):
        save_phantom(folder / "scans" / f"Smith{number}.nii.gz", seed=number)
        records.append(
            {
                "path": f"Smith{number}.nii.gz", "domain": "site a", "modality": "CT", "sequence": None,
                "patient_group": f"Smith {number}", "split": split, "licence": "CC0", "licence_grade": "A",
                "diagnosis": diagnosis, "side": "left",
            }
        )  # fmt: skip
    (folder / "scans" / "index.json").write_text(json.dumps(records))
    save_tiny_classifier(save_tiny_model(folder / "model"))
    save_tiny_model(folder / "plain")
    return folder


def call(given, output, *more, model="model", target="diagnosis"):
    words = ["classification", given / model, "--data", given / "scans", "--target", target, "-o", output]
    return CliRunner().invoke(app, [str(word) for word in (*words, "--device", "cpu", *more)])


def test_test_scans_of_known_classes_are_judged(given, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(MARKERS)
    done = call(given, tmp_path / "out", "--document", page, "--card", "--seed", 3)
    assert done.exit_code == 0, done.output
    data = json.loads((tmp_path / "out" / "classification.json").read_text())
    assert (data["seed"], data["target"], data["classes"]) == (3, "diagnosis", ["benign", "malignant"])
    assert data["not_evaluated"] == {"unclear": 1}
    assert len(data["classifier_sha256"]) == len(data["model_sha256"]) == 64
    auc, accuracy = data["metrics"]
    assert (auc["name"], accuracy["name"]) == ("AUC", "balanced accuracy")
    assert (auc["num_samples"], auc["num_patients"]) == (2, 2)

    confusion, single = (table["rows"] for table in data["tables"])
    asked = ClassifyRequest(given / "scans" / "Smith2.nii.gz", model=given / "model", device="cpu")
    found = classify(asked)
    assert single[1][2:] == ["malignant", found.found, pytest.approx(found.probabilities[found.found])]
    assert sum(sum(row[1:]) for row in confusion) == 2
    recognised = [single[0][3] == "benign", found.found == "malignant"]
    assert accuracy["value"] == sum(recognised) / 2

    text = page.read_text()
    assert "AUC" in text
    assert "former" not in text
    card = read_card(given / "model").classifier
    assert card is not None
    assert card.metrics["target"] == "diagnosis"
    assert "Smith" not in done.output + text + json.dumps(data)
    again = call(given, tmp_path / "out")
    assert again.exit_code == 2
    assert "--overwrite" in again.output


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"target": "colour"}, "has no column colour"),
        ({"target": "side"}, "the test scans have 0 of the 2 classes of the classifier"),
        ({"model": "plain"}, "has no classifier"),
    ],
)
def test_what_cannot_work_is_told(given, tmp_path, more, words):
    done = call(given, tmp_path / "out", **more)
    assert done.exit_code == 2, done.output
    assert words in " ".join(done.output.split())
    assert not list((tmp_path / "out").glob("*"))
