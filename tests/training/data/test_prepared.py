"""Scans on the working grid: read once, written, and read back as they were."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny import save_phantom

from meduet_training.data.caches.prepared import (
    _key,
    load_prepared,
    prepare_cohort,
    prepare_scan,
    save_prepared,
)
from meduet_training.data.cohort.scans import Scan


def a_scan(path, modality="CT", patient="1f3a", domain="site") -> Scan:
    return Scan(
        path=path,
        domain=domain,
        patient=patient,
        modality=modality,
        split="train",
        licence="CC0",
        may_train=True,
    )


@pytest.mark.parametrize(("modality", "stored"), [("CT", np.int16), ("MR", np.float16)])
def test_a_scan_comes_back_as_it_was_written(tmp_path, modality, stored):
    scan = prepare_scan(a_scan(save_phantom(tmp_path / "a.nii.gz", modality), modality))
    save_prepared(scan, tmp_path / "a.safetensors")
    back = load_prepared(tmp_path / "a.safetensors")
    assert back.values.dtype == stored
    assert back.body.shape == back.values.shape
    assert 0.2 < back.body.mean() < 0.9
    for name, value in vars(scan).items():
        np.testing.assert_array_equal(getattr(back, name), value)


def test_ct_stays_in_hu_and_mr_is_in_profile_units(tmp_path):
    ct = prepare_scan(a_scan(save_phantom(tmp_path / "ct.nii.gz", "CT"), "CT"))
    mr = prepare_scan(a_scan(save_phantom(tmp_path / "mr.nii.gz", "MR"), "MR"))
    assert abs(np.median(ct.values[ct.body]) - 40) < 10  # the phantom's soft tissue
    assert ct.values.min() < -900
    assert (mr.values.min(), mr.values.max()) == (0.0, 1.0)


def test_scans_are_aligned_if_patient_and_grid_are_one(tmp_path):
    paths = [
        save_phantom(tmp_path / "t1.nii.gz", "MR", seed=0),
        save_phantom(tmp_path / "t2.nii.gz", "MR", seed=1),
        save_phantom(tmp_path / "short.nii.gz", "MR", seed=1, shape=(44, 40, 20)),
    ]
    first, second, short = (prepare_scan(a_scan(path, "MR")).aligned for path in paths)
    other_patient = prepare_scan(a_scan(paths[0], "MR", patient="9c2b")).aligned
    assert first == second
    assert len({first, short, other_patient}) == 3


def test_a_cohort_is_prepared_once(tmp_path):
    scans = [a_scan(save_phantom(tmp_path / f"{name}.nii.gz", seed=n)) for n, name in enumerate("ab")]
    first = prepare_cohort(scans, tmp_path / "prepared")
    written = [path.stat().st_mtime_ns for path in first]
    assert prepare_cohort(scans, tmp_path / "prepared") == first
    assert [path.stat().st_mtime_ns for path in first] == written
    assert len(set(first)) == 2


def test_scans_of_one_name_are_told_apart_by_a_manifest(tmp_path):
    scans = []
    for number in range(2):
        (tmp_path / f"p{number}").mkdir()
        path = save_phantom(tmp_path / f"p{number}" / "ct.nii", seed=number)  # of one size too
        scans.append(replace(a_scan(path), sha256=str(number)))
    scans.append(replace(scans[1], series="2"))
    assert len(set(prepare_cohort(scans[:2], tmp_path / "prepared"))) == 2
    assert len({_key(scan) for scan in scans}) == 3


def test_nothing_written_names_a_file(tmp_path):
    path = save_phantom(tmp_path / "doe_john.nii.gz")
    (written,) = prepare_cohort([a_scan(path)], tmp_path / "prepared")
    assert b"doe" not in written.read_bytes()
    header = written.read_bytes()
    words = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]
    assert set(json.loads(words["scan"])) == {"domain", "patient", "modality", "aligned", "sha256"}
