"""Parts that all fine-tuning tasks share: the validation set, and style augmentation."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from meduet_training.data.cohort.scan import Scan
from meduet_training.data.labels.scans import LabelledScan
from meduet_training.data.labels.task import LabelTask
from meduet_training.data.sources.labelled_crops import HELD_POSES
from meduet_training.tasks.finetuning.shared import style_augmentation, style_bank, validation_patients
from meduet_training.tasks.segmenter.run import split_scans
from napari_meduet.core.analysis.style_augmentation import HALF, ONE_SHOT, TENTH, StyleAugmentation
from napari_meduet.core.factors import StyleStatistics
from napari_meduet.errors import InputError

KINDS = {f"patient {number}": {"liver"} for number in range(10)}


def test_a_fifth_of_five_or_more_patients_is_held_out():
    patients = list(KINDS)
    found = {
        count: len(validation_patients(dict.fromkeys(patients[:count], ()), KINDS)) for count in (1, 4, 5, 10)
    }
    assert found == {1: 0, 4: 0, 5: 1, 10: 2}


def test_the_only_patient_with_a_class_is_not_held_out():
    rare = next(iter(validation_patients(dict.fromkeys(KINDS, ()), KINDS)))
    kinds = KINDS | {rare: {"liver", "tumour"}}
    assert rare not in validation_patients(dict.fromkeys(kinds, ()), kinds)


def test_validation_patients_do_not_depend_on_other_patients():
    everyone = validation_patients(dict.fromkeys(KINDS, ()), KINDS)
    fewer = {name: () for name in KINDS if name in everyone or int(name[-1]) % 2}
    assert everyone & validation_patients(fewer, KINDS)


@pytest.mark.parametrize(
    ("styles", "num_labelled", "num_scans", "expected"),
    [
        ("auto", 1, 50, ONE_SHOT),
        ("auto", 10, 100, TENTH),
        ("auto", 60, 100, HALF),
        ("off", 1, 1, None),
        ("half", 1, 9, HALF),
    ],
)
def test_the_column_of_table_12_follows_the_labels_or_the_option(styles, num_labelled, num_scans, expected):
    assert style_augmentation(styles, None, num_labelled, num_scans) == expected
    assert style_augmentation(styles, expected, num_labelled, num_scans) == expected


def test_two_different_style_options_are_refused():
    with pytest.raises(InputError, match="something else than styles: off"):
        style_augmentation("off", StyleAugmentation(probability=0.5), 1, 1)


def scan(domain: str, split: str) -> Scan:
    return Scan(
        path=Path("a.nii"), domain=domain, patient="p", modality="CT", split=split, licence="", may_train=True
    )


def test_the_styles_of_a_domain_that_is_only_tested_stay_unseen():
    def style(value: float, modality: str):
        numbers = torch.full((2,), value)
        return SimpleNamespace(statistics=StyleStatistics(mean=numbers, std=numbers), modality=modality)

    known = {"a": style(1.0, "CT"), "b": style(2.0, "CT"), "elsewhere": style(3.0, "MR")}
    model = SimpleNamespace(known_styles=known, card=SimpleNamespace(name="demo"))
    bank = style_bank(model, [scan("a", "train"), scan("b", "test")], {"CT"})
    assert bank.styles.tolist() == [[1.0, 1.0], [3.0, 3.0]]
    assert bank.modality.tolist() == [0, 1]
    seen = style_bank(model, [scan("b", "test"), replace(scan("b", "train"), patient="q")], {"CT"})
    assert len(seen.styles) == 3
    with pytest.raises(InputError, match="demo knows no styles of CT"):
        style_bank(model, [scan("a", "test"), scan("b", "test")], {"CT"})


def labelled(patient: str) -> LabelledScan:
    channels = (replace(scan("a", "train"), patient=patient),)
    return LabelledScan(channels=channels, labels_path=Path("a_seg.nii"), names={1: "liver"})


def test_a_patient_is_in_one_set_and_few_scans_are_validated_in_other_poses():
    task = LabelTask(labels=(0, 1), sources={"liver": ("liver",)})
    many = split_scans(task, [labelled(f"p{number // 2}") for number in range(12)])
    learned, judges = ({each.first.patient for each in some} for some in (many.train, many.validation))
    assert (len(learned), len(judges), learned & judges) == (5, 1, set())
    assert (len(many.validation), many.validation_poses) == (2, (0,))
    assert many.note == "Crops of 1 of 6 patients of the train split, who are held out for the validation."
    few = split_scans(task, [labelled("p0"), labelled("p1")])
    assert few.validation == few.train
    assert not set(few.train_poses) & set(few.validation_poses)
    assert few.validation_poses == HELD_POSES
    assert "too few patients" in few.note
