"""What a scan is, in numbers: `read_info`, its JSON, and how soon it answers."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_meduet.errors import InputError
from napari_meduet.volumes.files import file_sha256, read_info, read_volume, write_volume

from .corpus import LPS_AFFINE, SHAPE, dicom_series, nifti_bytes, packed, write_nifti


def test_the_information_of_a_scan(tmp_path: Path):
    path = write_nifti(tmp_path / "scan.nii.gz", nifti_bytes(scl_slope=-2.0, scl_inter=5.0))
    info = json.loads(json.dumps(read_info(path).as_json()))
    values = read_volume(path).values()
    assert info["shape"] == list(SHAPE)
    assert info["spacing_mm"] == pytest.approx([1.5, 2.0, 3.0])
    assert info["affine"] == LPS_AFFINE.tolist()
    assert info["orientation"] == "LPS"
    assert (info["min_value"], info["max_value"]) == (values.min(), values.max())
    assert info["voxel_type"] == "int16"
    assert info["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest() == file_sha256(path)
    assert info["synthetic"] is None
    assert len(info["warnings"]) == 1


def test_the_information_of_a_result_and_of_a_series(tmp_path: Path):
    volume = read_volume(dicom_series(tmp_path))
    write_volume(tmp_path / "out.nii.gz", volume, provenance={"synthetic": True, "modality": "CT"})
    info = read_info(tmp_path / "out.nii.gz")
    assert info.synthetic == {"synthetic": True, "modality": "CT"}
    assert info.warnings == ()
    assert read_info(tmp_path / "series").min_value == info.min_value == -1000


def test_the_information_of_a_scan_needs_no_heavy_library(tmp_path: Path):
    """`meduet info` answers within a second: torch, SimpleITK, napari and scipy's filters stay asleep."""
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(packed())
    script = """
import sys
from napari_meduet.volumes.files import read_info
read_info(sys.argv[1])
heavy = {"torch", "SimpleITK", "napari", "scipy.ndimage", "pandas", "matplotlib"}
print(sorted(heavy & set(sys.modules)))
"""
    answer = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_a_modality_that_does_not_exist_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="'PET' is not known; choose CT or MR"):
        read_volume(write_nifti(tmp_path / "scan.nii", nifti_bytes()), modality="PET")


def test_the_modality_given_wins_over_the_guess(tmp_path: Path):
    volume = read_volume(write_nifti(tmp_path / "scan.nii", nifti_bytes()), modality="MR")
    assert (volume.modality, volume.unit, volume.warnings) == ("MR", "arbitrary", ())


def test_a_ct_without_negative_values_is_doubted(tmp_path: Path):
    voxels = np.random.default_rng(0).integers(0, 3000, SHAPE).astype(np.int16)
    volume = read_volume(write_nifti(tmp_path / "scan.nii", nifti_bytes(voxels)), modality="CT")
    assert any("rescale intercept may be missing" in warning for warning in volume.warnings)


def test_a_choice_that_cannot_apply_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="not DICOM, so there is no series '2'"):
        read_volume(write_nifti(tmp_path / "scan.nii", nifti_bytes()), series="2")
    with pytest.raises(InputError, match="by its series, not by volume_index"):
        read_volume(dicom_series(tmp_path), volume_index=1)


def test_no_file_at_all_is_refused():
    with pytest.raises(InputError, match="No file"):
        read_volume([])
