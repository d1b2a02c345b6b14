"""The list of scans: what a record means, and what is said of a bad one."""

import json

import pytest

from meduet_training.data.cohort.scans import read_cohort, trainable
from napari_meduet.errors import InputError

CT = {
    "path": "a.nii.gz",
    "domain": "ct-hospital",
    "modality": "CT",
    "sequence": None,
    "patient_group": "hospital/doe",
    "split": "train",
    "licence": "CC BY 4.0",
    "licence_grade": "A",
    "seg_path": None,
}
OPTIONAL = ("seg_path", "sequence")  # a CT has no sequence
MR = CT | {"modality": "MR", "domain": "ms", "sequence": "T2", "seg_path": "a_seg.nii.gz"}


@pytest.fixture
def cohort(tmp_path):
    def write(index):
        (tmp_path / "a.nii.gz").touch()
        text = index if isinstance(index, str) else json.dumps(index)
        (tmp_path / "index.json").write_text(text)
        return tmp_path

    return write


def test_a_record_becomes_a_scan(cohort):
    folder = cohort([CT, MR])
    ct, mr = read_cohort(folder)
    assert (ct.path, ct.domain, ct.sequence, ct.labels_path) == (
        folder / "a.nii.gz",
        "ct-hospital",
        None,
        None,
    )
    assert (mr.domain, mr.sequence, mr.labels_path) == ("ms-T2", "T2", folder / "a_seg.nii.gz")


def test_patients_are_hashes_that_only_their_own_scans_share(cohort):
    one, same, other = read_cohort(cohort([CT, MR, CT | {"patient_group": "hospital/roe"}]))
    assert one.patient == same.patient != other.patient
    assert "doe" not in str(one)


def test_what_may_not_be_shipped_or_is_for_testing_is_not_trained_on(cohort):
    scans = read_cohort(cohort([CT, CT | {"split": "test"}, CT | {"licence_grade": "B"}]))
    assert trainable(scans) == scans[:1]
    with pytest.raises(InputError, match="None of the 2 scans may be trained on"):
        trainable(scans[1:])


def test_a_folder_without_an_index_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no index\.json"):
        read_cohort(tmp_path)


def without(field):
    return {name: value for name, value in CT.items() if name != field}


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        ("[{", r"index\.json is no JSON"),
        ({"scans": [CT]}, "must be a list"),
        ([], "must be a list"),
        ([CT, "a.nii.gz"], "record 2 is no record"),
        ([CT | {"patient_group": 7}], "record 1 is no record"),
        ([CT, CT | {"path": "gone.nii.gz"}], r"record 2: there is no gone\.nii\.gz"),
        ([CT | {"modality": "PET"}], "record 1: modality must be one of CT, MR; got 'PET'"),
        ([CT | {"split": "validation"}], "split must be one of train, test; got 'validation'"),
        *(([without(field)], f"record 1 lacks the field '{field}'") for field in CT if field not in OPTIONAL),
    ],
)
def test_a_bad_index_is_refused_in_a_sentence(cohort, index, sentence):
    with pytest.raises(InputError, match=sentence):
        read_cohort(cohort(index))
