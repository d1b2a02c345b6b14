"""The class of a scan, from whatever column; and the patients who watch over the learning."""

import csv
import json

import pytest

from meduet_training.data.cohort.scan import Scan
from meduet_training.data.cohort.scans import read_cohort
from meduet_training.data.labels.scan_classes import (
    ClassifiedScan,
    class_names,
    classified_scans,
    watching_patients,
)
from napari_meduet.errors import InputError

COLUMNS = ("path", "patient", "domain", "modality", "sequence", "split", "left_out", "diagnosis")
ROWS = [
    ("a.nii", "p1", "site", "MR", "T1", "train", "", "benign"),
    ("b.nii", "p2", "site", "MR", "T2", "train", "a copy", "malignant"),
    ("c.nii", "p3", "site", "MR", "T1", "train", "", " "),
    ("d.nii", "p4", "site", "CT", "", "test", "", "malignant"),
]


@pytest.fixture
def manifest(tmp_path):
    for row in ROWS:
        (tmp_path / row[0]).touch()
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *ROWS])
    return tmp_path / "manifest.csv"


def named(scans):
    return [(each.scan.path.name, each.name) for each in scans]


def scan(name, patient, split="train"):
    made = Scan(
        path=f"{name}{patient}", domain="site", patient=patient, modality="CT", split=split, licence="",
        may_train=True,
    )  # fmt: skip
    return ClassifiedScan(scan=made, name=name)


def test_a_column_of_a_manifest_tells_the_class_of_the_scans_that_are_used(manifest):
    found = classified_scans(manifest, read_cohort(manifest), "diagnosis")
    assert named(found) == [("a.nii", "benign"), ("d.nii", "malignant")]


def test_what_every_list_says_can_be_learnt(manifest):
    cohort = read_cohort(manifest)
    assert named(classified_scans(manifest, cohort, "sequence")) == [("a.nii", "T1"), ("c.nii", "T1")]
    assert {name for _, name in named(classified_scans(manifest, cohort, "modality"))} == {"CT", "MR"}


def test_a_field_of_an_index_tells_the_class_and_some_classes_can_be_chosen(tmp_path):
    records = [
        {
            "path": f"{number}.nii", "domain": "site", "patient_group": f"p{number}", "modality": "CT",
            "sequence": None, "split": "train", "licence": "CC0", "licence_grade": "A", "stage": stage,
        }
        for number, stage in enumerate((1, 2, 3, None))
    ]  # fmt: skip
    for record in records:
        (tmp_path / record["path"]).touch()
    (tmp_path / "index.json").write_text(json.dumps(records))
    cohort = read_cohort(tmp_path)
    found = classified_scans(tmp_path, cohort, "stage")
    assert named(found) == [("0.nii", "1"), ("1.nii", "2"), ("2.nii", "3")]
    assert named(classified_scans(tmp_path, cohort, "stage", ["3", "1"])) == [("0.nii", "1"), ("2.nii", "3")]


@pytest.mark.parametrize(
    ("target", "classes", "sentence"),
    [
        ("diagnoses", (), "has no column diagnoses; did you mean diagnosis?"),
        ("age", (), "has no column age; it has "),
        ("diagnosis", ("malignent",), "no scan's diagnosis is malignent; did you mean malignant?"),
        ("diagnosis", ("x",), "there are benign, malignant"),
    ],
)
def test_what_is_not_there_is_one_sentence(manifest, target, classes, sentence):
    with pytest.raises(InputError, match=sentence.replace("?", r"\?")):
        classified_scans(manifest, read_cohort(manifest), target, classes)


def test_classes_are_sorted():
    scans = [scan(name, patient) for name in "ba" for patient in "12"]
    assert class_names(scans, "stage") == ("a", "b")


@pytest.mark.parametrize(
    ("scans", "sentence"),
    [
        ([], "have no class as their stage"),
        ([("a", "1"), ("a", "2")], "have one class alone, a as their stage"),
        ([("a", "1"), ("a", "2"), ("b", "3"), ("b", "3")], "The class b has one patient to train on"),
    ],
)
def test_too_few_classes_or_patients_are_one_sentence(scans, sentence):
    with pytest.raises(InputError, match=sentence):
        class_names([scan(*each) for each in scans], "stage")


def test_a_fifth_of_each_class_watches_and_everyone_of_them_alone():
    scans = [scan("many", f"m{number}") for number in range(20)] + [scan("few", p) for p in ("f1", "f2")]
    watching = watching_patients(scans, seed=1)
    assert len([patient for patient in watching if patient.startswith("m")]) == 4
    assert len([patient for patient in watching if patient.startswith("f")]) == 1
    assert watching_patients(scans[::-1], seed=1) == watching
    assert watching_patients(scans, seed=2) != watching


def test_no_class_loses_the_only_patient_it_learns_from():
    scans = [scan("a", "1"), scan("a", "2"), scan("b", "1"), scan("b", "3"), scan("c", "2"), scan("c", "3")]
    for seed in range(8):
        try:
            watching = watching_patients(scans, seed)
        except InputError:
            continue
        for name in "abc":
            own = {each.scan.patient for each in scans if each.name == name}
            assert own & watching
            assert own - watching


def test_classes_that_share_both_patients_are_shared_out_once():
    scans = [scan(name, patient) for name in "ab" for patient in "12"]
    assert len(watching_patients(scans, seed=0)) == 1
