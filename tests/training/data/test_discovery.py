"""Which scans a folder is said to hold, in every layout; and how splits are drawn."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meduet_training.data.cohort.candidates import Origin, allows_training
from meduet_training.data.cohort.discovery import find_candidates
from meduet_training.data.cohort.layout import Layout
from meduet_training.data.cohort.splits import assign_splits, in_two_splits
from napari_meduet.errors import InputError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root, layout=Layout.auto, domain=None, patient=None):
    origins = [Origin.parse(text) if text else None for text in (domain, patient)]
    return find_candidates(root, layout, *origins)


def told(candidates, *fields):
    return [tuple(getattr(candidate, field) for field in fields) for candidate in candidates]


def test_folders_are_domains_and_theirs_are_patients(tmp_path):
    touch(
        tmp_path, "siteA/doe/ct.nii.gz", "siteA/doe/ct_seg.nii.gz", "siteA/roe/deep/er.MHA",
        "siteB/lone.nrrd", "top.nii", "siteA/doe/.hidden.nii", "siteA/labels/doe.nii.gz",
        "siteA/doe/notes.txt",
    )  # fmt: skip
    candidates = found(tmp_path)
    assert told(candidates, "domain", "patient", "patient_is_guess") == [
        (tmp_path.name, "top", True),
        ("siteA", "doe", False),
        ("siteA", "roe", False),
        ("siteB", "lone", True),
    ]
    assert candidates[1].labels == tmp_path / "siteA/doe/ct_seg.nii.gz"
    assert candidates[2].labels is None


def test_a_folder_of_dicom_is_one_candidate_with_all_below_it(tmp_path):
    for name in ("site/doe/study/IM1", "site/doe/study/more/IM2", "site/roe/IM1"):
        touch(tmp_path, name)
        (tmp_path / name).write_bytes(bytes(128) + b"DICM" + bytes(20))
    assert told(found(tmp_path), "path", "domain", "patient", "patient_in_header") == [
        (tmp_path / "site/doe/study", "site", "doe", True),
        (tmp_path / "site/roe", "site", "roe", True),
    ]


def test_domain_and_patient_come_from_where_a_person_says(tmp_path):
    touch(tmp_path, "2024/ge/doe_1.nii", "2024/ge/doe_2.nii", "2025/philips/roe_1.nii")
    by_name = found(tmp_path, domain="folder:2", patient="name:^[a-z]+")
    assert told(by_name, "domain", "patient") == [("ge", "doe"), ("ge", "doe"), ("philips", "roe")]
    by_group = found(tmp_path, domain="name:_(.)$", patient="folder:1")
    assert told(by_group, "domain", "patient") == [("1", "2024"), ("2", "2024"), ("1", "2025")]


def test_bids(tmp_path):
    touch(
        tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_ce-gd_T1w.nii.gz",
        "sub-01/anat/sub-01_dseg.nii.gz", "sub-02/ses-1/anat/sub-02_ses-1_FLAIR.nii.gz",
        "sub-02/ses-1/func/sub-02_ses-1_bold.nii.gz", "derivatives/sub-01/anat/sub-01_T1w.nii.gz",
        "dataset_description.json",
    )  # fmt: skip
    (tmp_path / "participants.tsv").write_text("participant_id\tsite\nsub-01\tulm\nsub-02\tgraz\n")
    candidates = found(tmp_path)
    assert told(candidates, "patient", "modality", "sequence") == [
        ("sub-01", "MR", "T1w"),
        ("sub-01", "MR", "T1w+contrast"),
        ("sub-02", "MR", "FLAIR"),
    ]
    assert {candidate.domain for candidate in candidates} == {tmp_path.name}
    sites = {(one.patient, one.domain) for one in found(tmp_path, domain="column:site")}
    assert sites == {("sub-01", "ulm"), ("sub-02", "graz")}


def decathlon(folder, **description):
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(description))


def test_nnunet_and_the_decathlon(tmp_path):
    touch(
        tmp_path, "nn/imagesTr/a_0000.nii.gz", "nn/imagesTr/a_0001.nii.gz", "nn/labelsTr/a.nii.gz",
        "msd/imagesTr/b.nii.gz", "msd/imagesTr/._b.nii.gz", "msd/imagesTs/c.nii.gz",
    )  # fmt: skip
    decathlon(tmp_path / "nn", channel_names={"0": "T1", "1": "T2"})
    decathlon(tmp_path / "msd", modality={"0": "FLAIR", "1": "T1w"}, licence="CC-BY-NC 4.0")
    assert told(found(tmp_path / "nn"), "patient", "sequence", "volume_index", "split", "labels") == [
        ("a", "T1", None, "train", tmp_path / "nn/labelsTr/a.nii.gz"),
        ("a", "T2", None, "train", tmp_path / "nn/labelsTr/a.nii.gz"),
    ]
    assert told(found(tmp_path / "msd"), "patient", "sequence", "volume_index", "split", "may_train") == [
        ("b", "FLAIR", 0, "train", False),
        ("b", "T1w", 1, "train", False),
        ("c", "FLAIR", 0, "test", False),
        ("c", "T1w", 1, "test", False),
    ]
    decathlon(tmp_path / "msd", modality={"0": "CT"})
    assert (
        told(found(tmp_path / "msd"), "modality", "sequence", "volume_index", "may_train")
        == [("CT", None, None, True)] * 2
    )


def test_a_folder_may_hold_datasets_of_several_layouts(tmp_path):
    touch(tmp_path, "clinic/doe/ct.nii", "msd/imagesTr/b.nii.gz")
    decathlon(tmp_path / "msd", modality={"0": "CT"})
    assert told(found(tmp_path), "domain", "patient", "split") == [
        ("clinic", "doe", None),
        ("msd", "msd/b", "train"),
    ]


def test_a_table_of_scans(tmp_path):
    touch(tmp_path, "a.nii", "b.nii", "b_mask.nii")
    (tmp_path / "list.csv").write_text(
        "path,patient,domain,site,modality,split,labels,licence\n"
        "a.nii,007,ge,ulm,CT,train,,CC BY 4.0\n"
        "b.nii,7,ge,graz,,,b_mask.nii,CC BY-NC 4.0\n"
    )
    assert told(found(tmp_path / "list.csv"), "path", "patient", "domain", "modality", "split") == [
        (tmp_path / "a.nii", "007", "ge", "CT", "train"),
        (tmp_path / "b.nii", "7", "ge", None, None),
    ]
    second = found(tmp_path / "list.csv", domain="column:site", patient="column:domain")[1]
    assert (second.domain, second.patient) == ("graz", "ge")
    assert (second.labels, second.may_train) == (tmp_path / "b_mask.nii", False)


def test_the_index_of_the_real_scans(shared_data):
    candidates = found(shared_data)
    records = json.loads((shared_data / "index.json").read_text())
    assert [one.path for one in candidates] == [shared_data / record["path"] for record in records]
    assert [one.split for one in candidates] == [record["split"] for record in records]
    assert [one.may_train for one in candidates] == [record["licence_grade"] == "A" for record in records]


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [("", True), ("CC BY 4.0", True), ("CC BY-NC 3.0 (TCIA)", False), ("CC-BY-NC-SA", False), ("INC", True),
     ("non-commercial use", False)],
)  # fmt: skip
def test_non_commercial_licences_are_known(licence, allowed):
    assert allows_training(licence) is allowed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("site", "says not where to look"),
        ("folder:0", "a whole number from 1"),
        ("name:(", "is no regular expression"),
        ("dicom:PatientName", "dicom:PatientName cannot name a domain; choose from"),
        ("dicom:KVP,PatientID", "dicom:PatientID cannot name a domain"),
    ],
)
def test_an_origin_that_cannot_be_meant_is_told(text, says):
    with pytest.raises(InputError, match=says):
        Origin.parse(text)


def test_what_cannot_be_found_is_told(tmp_path):
    touch(tmp_path, "site/a.nii")
    (tmp_path / "empty").mkdir()
    for call, says in (
        (lambda: found(tmp_path / "gone"), "gone: there is no such folder"),
        (lambda: found(tmp_path / "empty"), "empty: no scans were found in it"),
        (lambda: found(tmp_path, patient="folder:2"), "there is no folder:2"),
        (lambda: found(tmp_path, patient=r"name:^\d"), "does not match it"),
        (lambda: found(tmp_path, domain="column:site"), "cannot be looked up in the layout folders"),
        (lambda: found(tmp_path, Layout.nnunet, domain="folder:1"), "in the layout nnunet; there dicom can"),
        (lambda: found(tmp_path, Layout.bids, patient="name:a"), "in the layout bids; there nothing can"),
        (lambda: found(tmp_path, layout=Layout.nnunet), r"no dataset\.json"),
        (lambda: found(tmp_path, layout=Layout.index_json), r"holds no index\.json"),
        (lambda: found(tmp_path / "site/a.nii", layout=Layout.bids), "is no folder"),
    ):
        with pytest.raises(InputError, match=says):
            call()


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    touch(tmp_path, "site/a.nii")

    def locked(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", locked)
    with pytest.raises(InputError, match="the folder cannot be read"):
        found(tmp_path, Layout.folders)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a.nii,,ge,CT,train", "record 1 has no patient"),
        ("a.nii,7,,CT,train", "record 1 has no domain"),
        ("a.nii,7,ge,PET,train", "modality must be one of CT, MR; got 'PET'"),
        ("a.nii,7,ge,CT,val", "split must be one of train, test; got 'val'"),
    ],
)
def test_a_bad_line_of_a_table_is_told(tmp_path, line, says):
    (tmp_path / "list.csv").write_text(f"path,patient,domain,modality,split\n{line}\n")
    with pytest.raises(InputError, match=says):
        found(tmp_path / "list.csv")


COHORTS = st.lists(
    st.tuples(st.sampled_from("abcdefghij"), st.sampled_from(["ge", "philips", "siemens"])), min_size=1
)


@given(COHORTS, st.floats(0, 1), st.integers(0, 9))
def test_nobody_is_in_both_splits(scans, share, seed):
    patients, domains = zip(*scans, strict=True)
    splits = assign_splits(patients, domains, [None] * len(scans), test_share=share, seed=seed)
    assert in_two_splits(patients, splits) == set()
    again = assign_splits(patients, domains, [None] * len(scans), test_share=share, seed=seed)
    assert splits == again


def test_each_domain_gives_its_share():
    patients = [f"{domain}{number}" for domain in ("ge", "ph") for number in range(20)]
    domains = [patient[:2] for patient in patients]
    splits = assign_splits(patients, domains, [None] * 40, test_share=0.1, seed=0)
    tested = {patient for patient, split in zip(patients, splits, strict=True) if split == "test"}
    assert sorted(patient[:2] for patient in tested) == ["ge", "ge", "ph", "ph"]
    assert splits != assign_splits(patients, domains, [None] * 40, test_share=0.1, seed=1)


def test_given_splits_hold_for_all_scans_of_a_patient():
    patients, given_splits = ["a", "a", "b", "c"], ["test", None, "train", None]
    splits = assign_splits(patients, ["x"] * 4, given_splits, test_share=0.34, seed=0)
    assert splits == ["test", "test", "train", "train"]
    assert in_two_splits(["a", "a", "b"], ["train", "test", None]) == {"a"}


def test_a_domain_of_one_patient_is_for_training():
    assert assign_splits(["a", "a"], ["x", "x"], [None, None], test_share=0.9, seed=0) == ["train", "train"]
