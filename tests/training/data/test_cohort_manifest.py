"""The manifest: what a row means, what comes back, and what is said of a table that cannot be used."""

import polars as pl
import pytest

from meduet_training.data.cohort.manifest import read_manifest, read_rows, write_manifest
from meduet_training.data.cohort.scans import read_cohort, trainable
from napari_meduet.errors import InputError

ROW = {"path": "a.nii.gz", "patient": "007", "domain": "site", "modality": "CT", "split": "train"}
FULL = ROW | {
    "path": "b", "series": "2", "volume": 1, "modality": "MR", "sequence": "T2", "split": "test",
    "spacing_mm": "1 1 3", "shape": "9 9 9", "labels": "a.nii.gz", "licence": "CC BY-NC 4.0",
    "may_train": False, "clipped": 0.0123, "sha256": "12" * 32, "volume_hash": "0f", "series_hash": "e1",
    "left_out": None, "doubts": "the modality was guessed, from its values",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    (tmp_path / "b").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", ["cohort.csv", "cohort.parquet"])
def test_rows_come_back_as_they_were_written(folder, name):
    write_manifest(folder / name, [ROW, FULL])
    plain, full = read_rows(folder / name)
    assert full == FULL
    assert {field: value for field, value in plain.items() if value is not None} == ROW


@pytest.mark.parametrize("name", ["cohort.csv", "cohort.parquet"])
def test_a_row_becomes_a_scan(folder, name):
    write_manifest(folder / name, [ROW, FULL])
    ct, mr = read_cohort(folder / name)
    assert (ct.path, ct.patient, ct.split) == (folder / "a.nii.gz", "007", "train")
    assert (ct.labels_path, ct.series, ct.volume_index, ct.sha256) == (None, None, None, None)
    assert (mr.path, mr.series, mr.volume_index) == (folder / "b", "2", 1)
    assert (mr.labels_path, mr.sequence, mr.sha256) == (folder / "a.nii.gz", "T2", "12" * 32)
    assert (ct.may_train, mr.may_train) == (True, False)
    assert trainable([ct, mr]) == [ct]


def test_a_table_written_by_hand_needs_five_columns(folder):
    (folder / "mine.csv").write_text("path,patient,domain,modality,split\na.nii.gz,007,site,CT,train\n")
    (scan,) = read_manifest(folder / "mine.csv")
    assert (scan.patient, scan.licence, scan.may_train) == ("007", "", True)


def test_rows_left_out_are_kept_but_not_handed_on(folder):
    gone = ROW | {"path": "gone.nii.gz", "split": None, "left_out": "gone.nii.gz: is empty (0 bytes)."}
    write_manifest(folder / "cohort.csv", [gone, ROW])
    assert [scan.path.name for scan in read_manifest(folder / "cohort.csv")] == ["a.nii.gz"]
    assert len(read_rows(folder / "cohort.csv")) == 2
    write_manifest(folder / "cohort.csv", [gone])
    with pytest.raises(InputError, match=r"cohort\.csv lists no scan that is used; all 1 rows"):
        read_manifest(folder / "cohort.csv")


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (ROW | {"path": "gone.nii.gz"}, r"1 of its 2 scans are not there, first gone\.nii\.gz"),
        (ROW | {"labels": "gone_seg.nii.gz"}, r"1 of its 1 label files are not there, first gone_seg"),
        (ROW | {"split": "validation"}, "row 2: split must be one of train, test; got 'validation'"),
        (ROW | {"modality": "PET"}, "row 2: modality must be one of CT, MR; got 'PET'"),
        (ROW | {"domain": ""}, "row 2 has no domain"),
        (ROW | {"patient": None}, "row 2 has no patient"),
    ],
)
def test_a_row_that_cannot_be_meant_is_told(folder, row, sentence):
    write_manifest(folder / "cohort.csv", [ROW, row])
    with pytest.raises(InputError, match=sentence):
        read_manifest(folder / "cohort.csv")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("gone.csv", None, "there is no such manifest"),
        ("cohort.txt", b"path\n", r"ends with \.csv or \.parquet"),
        ("cohort.csv", b"", r"cohort\.csv is no table that can be read"),
        ("cohort.csv", b"path,patient,modality\na,b,CT\n", "lacks the columns domain, split"),
        ("cohort.csv", b"path,clipped\na,much\n", "is no table that can be read"),
        ("cohort.parquet", b"PAR1 and no more", r"cohort\.parquet is no table"),
    ],
)
def test_a_table_that_cannot_be_used_is_told(folder, name, content, sentence):
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_manifest(folder / name)


def test_a_manifest_is_replaced_whole_or_not_at_all(folder, monkeypatch):
    write_manifest(folder / "cohort.csv", [ROW])
    before = (folder / "cohort.csv").read_bytes()

    def half(table, path):
        path.write_text("path,pat")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_csv", half)
    with pytest.raises(InputError, match="cohort"):
        write_manifest(folder / "cohort.csv", [ROW, FULL])
    assert (folder / "cohort.csv").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["a.nii.gz", "b", "cohort.csv"]
