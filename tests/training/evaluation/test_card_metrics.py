"""All figures of a random model on phantoms: they reach card and page, and leave the weights alone."""

import json

import pytest
from tiny import save_phantom, save_tiny_model

from meduet_training.evaluation.card.metrics import SECTIONS, SEED, measure_model
from napari_meduet.errors import InputError
from napari_meduet.models.card import read_card

SITE = "mr-brain-ljubljana-ms3t"
SCANS = [  # domain, patient, sequence, split
    ("ct-chest-a", "p1", None, "train"),
    ("ct-chest-b", "p2", None, "train"),
    ("ct-chest-b", "p3", None, "test"),
    ("ct-chest-a", "p4", None, "test"),
    *[(SITE, "p5", sequence, "train") for sequence in ("T1", "T2", "FLAIR")],
    *[(SITE, "p6", sequence, "test") for sequence in ("T1", "T2", "FLAIR")],
    *[("mr-extremity-c", patient, "T1", "train") for patient in ("p7", "p8")],
    ("mr-extremity-d", "p9", "T1", "train"),
    ("mr-extremity-d", "p0", "T1", "test"),
]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    records = []
    for number, (domain, patient, sequence, split) in enumerate(SCANS):
        modality = "MR" if sequence else "CT"
        path = save_phantom(folder / f"{patient}_{sequence}.nii.gz", modality, seed=number % 5)
        records.append(
            {
                "domain": domain,
                "path": path.name,
                "modality": modality,
                "sequence": sequence,
                "patient_group": patient,
                "split": split,
                "licence": "CC0",
                "licence_grade": "A",
            }
        )
    (folder / "index.json").write_text(json.dumps(records))
    return folder


def test_every_figure_reaches_card_and_page(cohort, tmp_path):
    model, page, shown = save_tiny_model(tmp_path / "model"), tmp_path / "page.md", []
    page.write_text(
        "\n".join(
            f"<!-- metrics: {name} -->\nto be replaced\n<!-- end of metrics: {name} -->" for name in SECTIONS
        )
    )
    before = read_card(model)
    measure_model(model, cohort, list(SECTIONS), "cpu", page, shown.append)
    after = read_card(model)

    assert set(after.metrics) == set(SECTIONS)
    assert after.sha256 == before.sha256
    assert after.files == before.files
    text = page.read_text()
    assert "to be replaced" not in text
    for name, part in after.metrics.items():
        assert part["seed"] == SEED
        for metric in part["metrics"]:
            assert metric["name"] in text
            assert metric["low"] <= metric["value"] <= metric["high"] or name == "probes"
    assert len(shown) == len(SECTIONS)


def test_a_random_model_keeps_the_promises_that_need_no_training(cohort, tmp_path):
    model = save_tiny_model(tmp_path / "model")
    measure_model(model, cohort, ["identities"], "cpu", None, lambda text: None)
    metrics = read_card(model).metrics["identities"]["metrics"]
    assert [metric["value"] for metric in metrics] == [1.0, 1.0, 1.0]


def test_other_parts_stay_on_the_card(cohort, tmp_path):
    from napari_meduet.models.saving import save_metrics

    model = save_tiny_model(tmp_path / "model")
    save_metrics(model, {"roundtrip": {"seed": 1, "metrics": []}})
    measure_model(model, cohort, ["identities"], "cpu", None, lambda text: None)
    assert set(read_card(model).metrics) == {"roundtrip", "identities"}


def test_an_unknown_part_is_named(cohort, tmp_path):
    with pytest.raises(InputError, match="beauty"):
        measure_model(save_tiny_model(tmp_path), cohort, ["beauty"], "cpu", None, print)
