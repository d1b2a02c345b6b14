"""`meduet-evaluate segmentation` on a minute segmenter: files, card and page; mistakes are told."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from tiny import CLASSES, save_phantom, save_tiny_model, save_tiny_segmenter
from typer.testing import CliRunner

from meduet_training.commands.evaluate import app
from meduet_training.data.cohort.scans import read_cohort
from meduet_training.data.labels.scans import labelled_scans
from meduet_training.data.labels.task import LabelTask
from meduet_training.evaluation.segmentation.methods import atlas_method, threshold_method
from napari_meduet.core.analysis.unetr import UNETRConfig
from napari_meduet.models.card import SEGMENTER_FILE, read_card
from napari_meduet.models.loading import load_model
from napari_meduet.models.saving import copy_model, save_segmenter
from napari_meduet.models.segmenters import build_segmenter
from napari_meduet.pipelines.common.encoding import prepare_scan
from napari_meduet.pipelines.requests import SegmentRequest
from napari_meduet.pipelines.segmentation.session import segment
from napari_meduet.volumes.files import read_volume

NAMES = {"1": "left organ", "2": "right organ", "3": "tumour"}
CONFIG = "data: {classes: {organ: [left organ, right organ], bone: [bone]}}\n"
MARKERS = (
    "before\n<!-- metrics: segmentation -->\nformer figures\n<!-- end of metrics: segmentation -->\nafter\n"
)


def save_labels(scan: Path, labels: Path) -> None:
    """The organ of a phantom, in two halves: labels 1 and 2."""
    image = nib.load(scan)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side) for side in image.shape), indexing="ij")
    organ = (x - 0.3) ** 2 + y**2 + z**2 < 0.1
    halves = np.where(organ, np.where(z < 0, 1, 2), 0).astype(np.uint8)
    nib.save(nib.Nifti1Image(halves, image.affine), labels)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A model with a segmenter of random weights, an atlas and two test patients."""
    folder = tmp_path_factory.mktemp("given")
    scans = folder / "scans"
    scans.mkdir()
    records = []
    for number, split in enumerate(("train", "test", "test")):
        save_phantom(scans / f"Smith{number}.nii.gz", seed=number)
        save_labels(scans / f"Smith{number}.nii.gz", scans / f"{number}_seg.nii.gz")
        records.append(
            {
                "path": f"Smith{number}.nii.gz", "seg_path": f"{number}_seg.nii.gz", "labels": NAMES,
                "domain": "site a", "modality": "CT", "sequence": None, "patient_group": f"Smith {number}",
                "split": split, "licence": "CC0", "licence_grade": "A",
            }
        )  # fmt: skip
    (scans / "index.json").write_text(json.dumps(records))
    (folder / "task.yaml").write_text(CONFIG)
    save_tiny_segmenter(save_tiny_model(folder / "model"))
    save_tiny_segmenter(save_tiny_model(folder / "other"), seed=1)
    return folder


def call(given, output, *more, model="model", data="scans"):
    words = ["segmentation", given / model, "--data", given / data, "-o", output, "--device", "cpu", *more]
    return CliRunner().invoke(app, [str(word) for word in words])


def test_everyone_is_judged_by_the_same_truth(given, tmp_path):
    page, out, before = tmp_path / "page.md", tmp_path / "out", read_card(given / "model")
    page.write_text(MARKERS)
    config = ("--config", given / "task.yaml")
    done = call(
        given, out, *config, "--against", given / "other", "--baselines", "--seed", 3, "--tolerance", 2,
        "--document", page, "--card",
    )  # fmt: skip
    assert done.exit_code == 0, done.output

    data = json.loads((out / "segmentation.json").read_text())
    assert (data["tolerance_mm"], data["seed"], data["num_scans"], data["num_patients"]) == (2, 3, 2, 2)
    assert data["not_covered"] == ["tumour"]
    assert data["not_evaluated"] == ["bone"]
    assert set(data["methods"]) == {"model", "other", "threshold", "atlas"}
    for name in ("model", "other"):
        assert all(len(digest) == 64 for digest in data["methods"][name].values())
    assert data["methods"]["model"]["model_sha256"] == before.sha256
    organ = data["structures"]["organ"]
    assert set(organ) == {"model", "other", "atlas"}  # no threshold finds an organ
    assert organ["atlas"]["Dice"]["value"] > 0.85 > 0.5 > organ["model"]["Dice"]["value"]
    for metrics in organ.values():
        for found in metrics.values():
            assert found["low"] <= found["value"] <= found["high"]
            assert (found["num_samples"], found["num_patients"]) == (2, 2)

    text = page.read_text()
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "former" not in text
    assert "model minus atlas: Dice" in text
    assert min(Image.open(out / "scan_2.png").size) > 300
    after = read_card(given / "model")
    assert after.sha256 == before.sha256
    assert after.segmenter is not None
    assert after.segmenter.metrics["tolerance_mm"] == 2
    assert "Smith" not in done.output + text + json.dumps(data)

    again = call(given, out, *config)
    assert again.exit_code == 2
    assert "--overwrite" in again.output


def test_dice_is_that_of_what_meduet_segment_writes(given, tmp_path):
    done = call(given, tmp_path / "out", "--config", given / "task.yaml")
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "out" / "segmentation.json").read_text())["tables"][1]["rows"]
    result = segment(SegmentRequest(given / "scans" / "Smith1.nii.gz", model=given / "model", device="cpu"))
    found = result.labels == CLASSES[1].label
    truth = np.asarray(nib.load(given / "scans" / "1_seg.nii.gz").dataobj) > 0
    assert rows[0][4] == pytest.approx(2 * (found & truth).sum() / (found.sum() + truth.sum()))
    assert rows[0][8] == pytest.approx(result.volumes_ml[CLASSES[1].label])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), "the segmenter knows organ, bone. Give --config"),
        (("--config", "nowhere.yaml"), "nowhere.yaml"),
        (("--names", "nowhere.yaml"), "nowhere.yaml"),
        (("--document", "nowhere.md"), "nowhere.md: this file does not exist"),
        (("--tolerance", "-1"), "tolerance"),
        (("--against", "SAME"), "two of the models"),
    ],
)
def test_what_cannot_work_is_told_before_it_begins(given, tmp_path, more, words):
    done = call(given, tmp_path / "out", *(given / "model" if word == "SAME" else word for word in more))
    assert done.exit_code == 2, done.output
    assert words.lower() in " ".join(done.output.split()).lower()
    assert not list((tmp_path / "out").glob("*"))


def test_a_model_without_a_segmenter_is_told(given, tmp_path):
    copy_model(given / "model", given / "plain", without=(SEGMENTER_FILE,))
    done = call(given, tmp_path / "out", model="plain")
    assert done.exit_code == 2
    assert "has no segmenter" in done.output


def test_a_list_without_labelled_test_scans_is_told(given, tmp_path):
    records = json.loads((given / "scans" / "index.json").read_text())
    for record in records:
        record["split"] = "train"
    (tmp_path / "scans").symlink_to(given / "scans")
    for record in records:
        record["path"], record["seg_path"] = f"scans/{record['path']}", f"scans/{record['seg_path']}"
    (tmp_path / "index.json").write_text(json.dumps(records))
    done = call(given, tmp_path / "out", data=tmp_path)
    assert done.exit_code == 2
    assert "no scan of the split 'test'" in done.output


def test_atlases_are_of_the_scans_own_kind_and_no_more_than_help(given):
    """Ten labelled scans of one kind: three are enough for a class; none is laid over an MR."""
    cohort = read_cohort(given / "scans")
    (train, test) = (labelled_scans(given / "scans", [cohort[k]])[0] for k in (0, 1))
    task = LabelTask(labels=(0, 3), sources={"organ": ("left organ", "right organ")})
    model = load_model(given / "model", "cpu")
    method = atlas_method(model, task, [train] * 10)
    assert method.origin == {"num_atlases": 3}
    prepared = [prepare_scan(model, read_volume(given / "scans" / "Smith1.nii.gz"))]
    other = replace(test, channels=(replace(test.first, sequence="T1"),))
    assert method.predict(other, prepared).names == {}
    assert not method.predict(other, prepared).labels.any()
    assert threshold_method().predict(test, prepared).names == {1: "lung_left", 2: "lung_right"}


def test_sequences_that_are_seen_together_are_judged_together(given, tmp_path):
    """A segmenter of two sequences is asked about both at once, and refuses one."""
    shutil.copytree(given / "model", tmp_path / "pair")
    config = UNETRConfig(
        grid=(2, 2, 2), width=24, depth=4, heads=2, features=8, num_classes=3, latent_channels=8
    )
    network = build_segmenter(config, read_card(tmp_path / "pair").tokenizer)
    save_segmenter(tmp_path / "pair", config, network.state_dict(), CLASSES, ("MR",), {})
    records = []
    for number, sequence in enumerate(("T1", "T2")):
        save_phantom(tmp_path / f"{sequence}.nii.gz", modality="MR", seed=number)
        save_labels(tmp_path / f"{sequence}.nii.gz", tmp_path / f"{sequence}_seg.nii.gz")
        records.append(
            {
                "path": f"{sequence}.nii.gz", "seg_path": f"{sequence}_seg.nii.gz", "labels": NAMES,
                "domain": "site a", "modality": "MR", "sequence": sequence, "patient_group": "Smith",
                "split": "test", "licence": "CC0", "licence_grade": "A",
            }
        )  # fmt: skip
    (tmp_path / "index.json").write_text(json.dumps(records))
    joined = CONFIG.replace("{classes", "{sequences: [T1, T2], classes")
    for name, text, code in (("both", joined, 0), ("alone", CONFIG, 2)):
        (tmp_path / f"{name}.yaml").write_text(text)
        done = call(
            given,
            tmp_path / name,
            "--config",
            tmp_path / f"{name}.yaml",
            model=tmp_path / "pair",
            data=tmp_path,
        )
        assert done.exit_code == code, done.output
    data = json.loads((tmp_path / "both" / "segmentation.json").read_text())
    assert (data["num_scans"], data["structures"]["organ"]["pair"]["Dice"]["num_samples"]) == (1, 1)
    assert "reads 2 scans of a patient at once, not 1" in " ".join(done.output.split())
