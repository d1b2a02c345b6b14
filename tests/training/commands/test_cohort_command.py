"""`meduet-cohort` from the command line: a table, a manifest, and one sentence for every mistake."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from bodies import body, save_body, save_dicom
from typer.testing import CliRunner

from meduet_training.commands.cohort import app
from meduet_training.data.cohort.manifest import read_rows
from meduet_training.data.cohort.scans import read_cohort

NAMES = ("Doe", "Jane", "4711")


def call(*words):
    return CliRunner().invoke(app, ["scan", *(str(word) for word in words), "--workers", "1"])


def spoken(result) -> str:
    return " ".join(re.sub("[│┃]", " ", result.output).split())


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """Two scanners, three patients each, and everything that goes wrong."""
    root = tmp_path_factory.mktemp("given") / "clinic"
    for number in range(6):
        save_body(root / ("ge", "philips")[number % 2] / f"p{number}" / "ct.nii.gz", number)
    save_body(root / "mobile" / "p7" / "ct.nii", 7)
    whole = (root / "ge/p0/ct.nii.gz").read_bytes()
    (root / "ge/p0/cut.nii.gz").write_bytes(whole[:3000])
    save_body(root / "ge" / "p8" / "tiny.nii", values=body(8, side=20))
    save_body(root / "philips" / "p3" / "windowed.nii", values=np.clip(body(9), -20, 60))
    return root


def test_a_clinics_folder_becomes_a_manifest(clinic, tmp_path):
    result = call(clinic, "-o", tmp_path / "cohort.csv")
    assert result.exit_code == 0, result.output
    text = spoken(result)
    assert "What will be used" in text
    assert "Left out: 2" in text
    assert "cut.nii.gz: is cut short" in text
    assert "Too small: 39 x 39 x 39 voxels at 1.5 mm" in text
    assert "Domains of one scan" in text
    assert "more than 5% of the body is clipped" in text
    assert "8 scans to use, 2 left out" in text
    scans = read_cohort(tmp_path / "cohort.csv")
    assert len(scans) == 8
    assert {scan.domain for scan in scans} == {"ge", "philips", "mobile"}
    by_name = {scan.path.parent.name: scan for scan in scans if scan.path.name == "ct.nii.gz"}
    windowed = next(scan for scan in scans if scan.path.name == "windowed.nii")
    assert windowed.patient == by_name["p3"].patient
    assert windowed.split == by_name["p3"].split
    assert all(
        scan.path.samefile(clinic / scan.domain / scan.path.parent.name / scan.path.name) for scan in scans
    )


def test_copies_across_sources_are_used_once(tmp_path):
    source = tmp_path / "scans"
    save_body(source / "lidc" / "p1" / "a.nii.gz", 1)
    save_body(source / "lidc" / "p1" / "second.nii.gz", 5)
    save_body(source / "lidc" / "p2" / "b.nii.gz", 2)
    save_body(source / "luna" / "x9" / "c.nii", values=body(1).astype(np.float32))
    save_body(source / "luna" / "x9" / "c_seg.nii", values=(body(1) > 0).astype(np.uint8))
    result = call(source, "-o", source / "cohort.parquet", "--test-share", "0.5")
    assert result.exit_code == 0, result.output
    assert "A copy of luna/x9/c.nii (the same image)." in spoken(result)  # that one has labels
    rows = {row["path"]: row for row in read_rows(source / "cohort.parquet")}
    assert rows["lidc/p1/second.nii.gz"]["patient"] == rows["luna/x9/c.nii"]["patient"]
    assert rows["lidc/p1/second.nii.gz"]["split"] == rows["luna/x9/c.nii"]["split"]
    assert rows["luna/x9/c.nii"]["labels"] == "luna/x9/c_seg.nii"


def test_nobody_is_named(tmp_path):
    save_dicom(tmp_path / "scans" / "s1", 1, Manufacturer="SIEMENS", ConvolutionKernel="B30f")
    save_dicom(tmp_path / "scans" / "s2", 2, Manufacturer="GE", ConvolutionKernel="LUNG")
    result = call(
        tmp_path / "scans",
        "-o",
        tmp_path / "cohort.csv",
        "--domain-from",
        "dicom:Manufacturer,ConvolutionKernel",
    )
    assert result.exit_code == 0, result.output
    first, second = read_cohort(tmp_path / "cohort.csv")
    assert {first.domain, second.domain} == {"SIEMENS-B30f", "GE-LUNG"}
    assert first.patient == second.patient  # both are Jane Doe's
    left = [path for path in tmp_path.iterdir() if path.is_file()]
    assert {path.name for path in left} == {"cohort.csv", "cohort.salt", "cohort.audit.jsonl"}
    told = result.output + "".join(path.read_text() for path in left)
    assert [name for name in (*NAMES, "1.2.3.4.1") if name in told] == []
    salt = (tmp_path / "cohort.salt").read_text().strip()
    assert salt not in (tmp_path / "cohort.csv").read_text() + (tmp_path / "cohort.audit.jsonl").read_text()


def test_patients_are_not_taken_for_domains(tmp_path):
    for number, name in enumerate(("DOE_Jane", "4711")):
        save_dicom(tmp_path / name / "ct", number)  # the patient's folder is the first
        refused = call(tmp_path, "-o", tmp_path / "cohort.csv")
        assert refused.exit_code == 2
        assert "Domains would be named for patients" in spoken(refused)
        assert not (tmp_path / "cohort.csv").exists()
    done = call(tmp_path, "-o", tmp_path / "cohort.csv", "--domain-from", "dicom:KVP")
    assert done.exit_code == 0, done.output
    assert {scan.domain for scan in read_cohort(tmp_path / "cohort.csv")} == {"unknown"}


def test_a_name_that_is_no_text_is_told(tmp_path):
    save_body(tmp_path / "ge" / "p1" / "a.nii", 1)
    os.rename(
        os.fsencode(save_body(tmp_path / "ge" / "p2" / "b.nii", 2)),
        os.fsencode(tmp_path) + b"/ge/p2/\xf6.nii",
    )
    done = call(tmp_path, "-o", tmp_path / "cohort.csv")
    assert done.exit_code == 0, done.output
    assert "are no UTF-8" in spoken(done)
    assert len(read_cohort(tmp_path / "cohort.csv")) == 1


def test_ids_are_kept_when_a_person_asks(tmp_path):
    save_dicom(tmp_path / "scans" / "s1", 1)
    save_body(tmp_path / "scans" / "s2" / "roe" / "a.nii", 2)
    assert call(tmp_path / "scans", "-o", tmp_path / "a.csv", "--keep-patient-ids").exit_code == 0
    assert {scan.patient for scan in read_cohort(tmp_path / "a.csv")} == {"4711", "roe"}
    assert call(tmp_path / "scans", "-o", tmp_path / "a.csv", "--overwrite").exit_code == 0
    assert not {scan.patient for scan in read_cohort(tmp_path / "a.csv")} & {"4711", "roe"}


def test_given_splits_are_kept_and_a_patient_in_both_is_only_tested_on(tmp_path):
    for seed in range(4):
        save_body(tmp_path / f"{seed}.nii", seed)
    (tmp_path / "list.csv").write_text(
        "path,patient,domain,split\n0.nii,a,ge,train\n1.nii,a,ge,test\n2.nii,b,ge,train\n3.nii,c,ge,\n"
    )
    result = call(tmp_path / "list.csv", "-o", tmp_path / "cohort.csv", "--test-share", "0")
    assert result.exit_code == 0, result.output
    assert "Its patient is in the test split as well." in spoken(result)
    scans = read_cohort(tmp_path / "cohort.csv")
    assert {scan.path.name: scan.split for scan in scans} == {
        "1.nii": "test",
        "2.nii": "train",
        "3.nii": "train",
    }


def test_a_modality_is_what_a_person_says_where_the_file_does_not(tmp_path):
    save_body(tmp_path / "scans" / "ge" / "p1" / "a.nii", 1, values=np.clip(body(1), 0, 900))  # guessed: MR
    save_dicom(tmp_path / "scans" / "ge" / "p2", 2)
    for options, modalities in (([], ["MR", "CT"]), (["--modality", "CT"], ["CT", "CT"])):
        done = call(tmp_path / "scans", "-o", tmp_path / "cohort.csv", "--overwrite", *options)
        assert done.exit_code == 0, done.output
        assert [scan.modality for scan in read_cohort(tmp_path / "cohort.csv")] == modalities
    wrong = call(tmp_path / "scans", "-o", tmp_path / "cohort.csv", "--overwrite", "--modality", "MR")
    assert [scan.modality for scan in read_cohort(tmp_path / "cohort.csv")] == ["MR", "CT"], wrong.output


def test_small_scans_are_used_when_a_person_asks(clinic, tmp_path):
    assert call(clinic, "-o", tmp_path / "cohort.csv", "--keep-small").exit_code == 0
    assert "tiny.nii" in {scan.path.name for scan in read_cohort(tmp_path / "cohort.csv")}


def test_strict_writes_nothing_when_something_is_left_out(clinic, tmp_path):
    result = call(clinic, "-o", tmp_path / "cohort.csv", "--strict")
    assert result.exit_code == 2
    assert "--strict: 2 scans would be left out" in spoken(result)
    assert not (tmp_path / "cohort.csv").exists()
    for seed in range(2):
        save_body(tmp_path / "sound" / "ge" / f"p{seed}" / "a.nii", seed)
    assert call(tmp_path / "sound", "-o", tmp_path / "cohort.csv", "--strict").exit_code == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gone"], "gone: there is no such folder"),
        (["."], "no scans were found in it"),
        (["clinic", "-o", "cohort.txt"], "a manifest's name ends with .csv or .parquet"),
        (["clinic", "-o", "there.csv"], "there.csv exists already; give --overwrite"),
        (["clinic", "-o", "there.csv/in.csv"], "this folder cannot be created"),
        (["clinic", "--profile", "ct-best"], "no intensity profile named 'ct-best'"),
        (["clinic", "--domain-from", "dicom:PatientName"], "dicom:PatientName cannot name a domain"),
        (["clinic", "--patient-from", "dicom:KVP"], "leave it out, and DICOM headers tell the patient"),
        (["clinic", "--test-share", "2"], "less than or equal to 1"),
        (["clinic", "--layout", "dicom"], "'dicom' is not one of"),
        (["clinic", "--layout", "nnunet"], "no dataset.json"),
        (["bad"], "No scan can be used, so no manifest was written"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.csv").write_text("mine")
    (tmp_path / "clinic").mkdir()
    if words[0] != ".":
        save_body(tmp_path / "clinic" / "ge" / "p" / "a.nii")
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / "a.nii").write_bytes(b"?")
    output = [] if "-o" in words else ["-o", "cohort.csv"]
    result = call(*words, *output)
    assert result.exit_code == 2
    assert says in spoken(result)
    assert "Traceback" not in result.output
    assert not (tmp_path / "cohort.csv").exists()
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_an_interrupted_audit_goes_on(tmp_path):
    """Ctrl-C while two processes read; the same command then reads what is missing alone."""
    for seed in range(12):
        save_body(tmp_path / "scans" / "ge" / f"p{seed}" / "a.nii.gz", seed)
    program = "from meduet_training.commands.cohort import app\nif __name__ == '__main__':\n    app()\n"
    (tmp_path / "cohort.py").write_text(program)
    command = [sys.executable, tmp_path / "cohort.py", "scan", "scans", "-o", "cohort.csv", "--workers", "2"]
    log = tmp_path / "cohort.audit.jsonl"
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on from there" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "cohort.csv").exists()
    before = log.read_text().splitlines()
    assert 0 < len(before) < 12
    result = call(tmp_path / "scans", "-o", tmp_path / "cohort.csv")
    assert result.exit_code == 0, result.output
    after = log.read_text().splitlines()
    assert after[: len(before)] == before
    assert len(after) == len({json.loads(line)["key"] for line in after}) == 12


def test_the_real_scans_hold_no_copies(shared_data, tmp_path):
    """The eight voxel orders of one scan are copies of each other; nothing else is."""
    result = call(shared_data, "-o", tmp_path / "cohort.csv", "--keep-small")
    assert result.exit_code == 0, result.output
    rows = read_rows(tmp_path / "cohort.csv")
    assert [row["path"] for row in rows if row["left_out"]] == []
    splits = {row["path"].split("/")[-1]: row["split"] for row in rows}
    records = json.loads((shared_data / "index.json").read_text())
    assert splits == {record["path"].split("/")[-1]: record["split"] for record in records}
    orders = call(shared_data / "orientations", "-o", tmp_path / "orders.csv", "--keep-small")
    assert orders.exit_code == 0, orders.output
    left_out = [row["left_out"] for row in read_rows(tmp_path / "orders.csv")]
    assert left_out.count(None) == 1
    assert all("(the same image)" in reason for reason in left_out if reason)
