"""What the numbers in label files mean, whoever wrote it down, and which classes a task has."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from meduet_training.data.cohort.scan import Scan
from meduet_training.data.labels.names import label_names, names_in, read_names
from meduet_training.data.labels.scans import check_labelled, labelled_scans
from meduet_training.data.labels.task import LabelTask, label_task, numbered
from napari_meduet.core.analysis.finetuning import IGNORED
from napari_meduet.errors import InputError


def scan(folder: Path, name: str, **changes) -> Scan:
    """A scan whose label file holds 0, 2 and 5."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.nii.gz"
    labels = np.zeros((2, 2, 3), np.uint8)
    labels[0, 0] = 0, 2, 5
    nib.save(nib.Nifti1Image(labels, np.eye(4)), path)
    known = {"path": path, "domain": "site", "patient": name, "modality": "MR", "split": "train"}
    return Scan(**known | {"licence": "CC0", "may_train": True, "labels_path": path} | changes)


@pytest.mark.parametrize(
    "said",
    [
        {"1": "liver", "7": "spleen"},
        {1: "liver", 7: "spleen"},
        {"background": 0, "liver": 1, "spleen": 7},
        {"background": 0, "liver": [1], "spleen": "7"},
    ],
)
def test_numbers_and_names_may_stand_either_way_round(said):
    assert names_in(said, "dataset.json") == {1: "liver", 7: "spleen"}


def test_of_regions_in_each_other_a_number_is_called_after_the_smallest():
    said = {"background": 0, "whole tumour": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    assert names_in(said, "dataset.json") == {1: "whole tumour", 2: "core", 3: "enhancing"}


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"liver": 1, "spleen": 1}, "label 1 is called both liver and spleen"),
        ({"liver": "spleen"}, "neither a number with a name nor a name with numbers"),
        ({"liver": -1}, "neither a number with a name"),
        ({"liver": []}, "neither a number with a name"),
        ({"liver": 1.5}, "neither a number with a name"),
    ],
)
def test_names_that_cannot_be_meant_are_refused_with_the_entry(said, sentence):
    with pytest.raises(InputError, match=sentence):
        names_in(said, "names.yaml")


def test_a_file_of_names_may_be_a_dataset_json_or_yaml(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "X", "labels": {"liver": 2}}))
    (tmp_path / "names.yaml").write_text("2: liver\n")
    (tmp_path / "list.yaml").write_text("- liver\n")
    assert read_names(tmp_path / "dataset.json") == read_names(tmp_path / "names.yaml") == {2: "liver"}
    for name, sentence in (("list.yaml", "names no labels"), ("nowhere.yaml", "cannot be read")):
        with pytest.raises(InputError, match=sentence):
            read_names(tmp_path / name)


def test_a_dataset_json_names_the_labels_of_a_manifests_scans_too(tmp_path):
    one = scan(tmp_path / "Task01" / "labelsTr", "a")
    other = scan(tmp_path / "elsewhere", "b")
    (tmp_path / "Task01" / "dataset.json").write_text('{"labels": {"liver": 2, "lesion": 5}}')
    (tmp_path / "names.yaml").write_text("2: kidney\n5: cyst\n")
    manifest = tmp_path / "manifest.csv"
    found = labelled_scans(manifest, [one, other])
    assert [each.names for each in found] == [{2: "liver", 5: "lesion"}, {2: "label 2", 5: "label 5"}]
    named = label_names(manifest, [one, other], tmp_path / "names.yaml")
    assert set(map(str, named.values())) == {"{2: 'kidney', 5: 'cyst'}"}


def test_an_index_says_it_for_each_scan(tmp_path):
    one, other = scan(tmp_path, "a"), scan(tmp_path, "b")
    records = [
        {"seg_path": "a.nii.gz", "labels": {"2": "liver", "5": "spleen"}},
        {"seg_path": "b.nii.gz", "labels": {"2": "spleen", "5": "liver"}},
    ]
    (tmp_path / "index.json").write_text(json.dumps(records))
    found = labelled_scans(tmp_path, [one, other])
    assert [each.names[2] for each in found] == ["liver", "spleen"]


def test_sequences_of_a_patient_are_seen_together_where_all_are_there(tmp_path):
    scans = [
        scan(tmp_path, "a2", patient="a", sequence="T2"),
        scan(tmp_path, "a1", patient="a", sequence="T1", labels_path=None),
        scan(tmp_path, "b1", patient="b", sequence="T1"),
    ]
    (found,) = labelled_scans(tmp_path / "m.csv", scans, sequences=("T1", "T2"))
    assert [each.sequence for each in found.channels] == ["T1", "T2"]
    assert found.labels_path.name == "a2.nii.gz"
    with pytest.raises(InputError, match="has T1 more than once"):
        labelled_scans(
            tmp_path / "m.csv", [*scans, scan(tmp_path, "x", patient="a", sequence="T1")], sequences=("T1",)
        )
    with pytest.raises(InputError, match="no patient has labels and all of PD; the list knows T1, T2"):
        check_labelled([], scans, ("PD",))


def test_a_label_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"lost\.nii\.gz: there is no such file of labels"):
        labelled_scans(tmp_path / "m.csv", [scan(tmp_path, "a", labels_path=tmp_path / "lost.nii.gz")])


def test_without_a_word_every_name_is_a_class_and_keeps_its_number_where_scans_agree():
    task = label_task([{2: "liver", 9: "lung"}, {5: "aorta", 6: "ignore", 7: "background"}])
    assert task.labels == (0, 2, 5, 9)
    assert task.names == ("background", "liver", "aorta", "lung")
    assert label_task([{1: "liver"}, {1: "aorta"}]).in_words() == "0 background, 1 aorta, 2 liver"
    assert numbered([("background", 0), ("liver", 3), ("aorta", 3)]) == {
        "background": 0,
        "aorta": 1,
        "liver": 2,
    }


def test_classes_join_names_and_a_class_goes_by_its_own_name_too():
    names = [{1: "lung_left", 2: "lung_right", 3: "liver"}, {8: "lungs"}]
    task = label_task(names, {"lungs": ["lung_left", "lung_right"]})
    assert (task.labels, task.names) == ((0, 1), ("background", "lungs"))
    assert task.meaning(names[0]).target(np.array([0, 1, 2, 3])).tolist() == [0, 1, 1, 0]
    assert task.meaning(names[1]).target(np.array([0, 8])).tolist() == [0, 1]


def test_who_looked_for_what_follows_from_the_names_and_nobody_looked_where_it_says_ignore():
    task = LabelTask(labels=(0, 1, 2), sources={"liver": ("liver",), "aorta": ("aorta",)})
    meaning = task.meaning({4: "aorta", 6: "ignore"})
    assert meaning.annotated == (True, False, True)
    assert meaning.target(np.array([0, 4, 6])).tolist() == [0, 2, IGNORED]


@pytest.mark.parametrize(
    ("named", "classes", "sentence"),
    [
        ([{7: "background"}], None, "0 everywhere"),
        ([{1: "liver"}], {"lver": ["lver"]}, "did you mean liver?"),
        ([{1: "liver"}], {"heart": ["heart"]}, "no scan to train on has labels called heart"),
        ([{1: "liver"}], {"background": ["liver"]}, "The class background is what no other class is"),
        ([{1: "liver"}], {"a": ["liver"], "b": ["liver"]}, "liver belongs to both a and b"),
        ([dict(enumerate(map(str, range(300)), start=1))], None, "There are 300 classes"),
    ],
)
def test_a_task_that_cannot_be_is_told_in_a_sentence(named, classes, sentence):
    with pytest.raises(InputError, match=sentence):
        label_task(named, classes)
