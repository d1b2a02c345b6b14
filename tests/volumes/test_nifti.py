"""NIfTI in and out: the same grid, header codes, type and numbers, and nothing of the patient."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Extension

from napari_meduet.errors import InputError
from napari_meduet.volumes.files import read_volume, write_volume

from .corpus import LPS_AFFINE, ct_voxels, nifti_bytes, units, write_nifti

PROVENANCE = {"synthetic": True, "kind": "translated", "modality": "CT", "seed": 7}
CODES = (
    "sform_code",
    "qform_code",
    "xyzt_units",
    "intent_code",
    "dim_info",
    "slice_code",
    "datatype",
    "bitpix",
)


@pytest.mark.parametrize(
    "dtype", ["int16", "uint8", "uint16", "int32", "float32", "float64", "int64", "uint64"]
)
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["out.nii", "out.nii.gz"])
def test_comes_back_as_it_was(tmp_path: Path, dtype: str, kind: type, name: str):
    image = kind((ct_voxels() + 100).clip(0, 255).astype(dtype), LPS_AFFINE, dtype=dtype)
    image.set_sform(LPS_AFFINE, 4)
    image.set_qform(LPS_AFFINE, 2)
    image.header["dim_info"], image.header["slice_code"], image.header["xyzt_units"] = 57, 3, 10
    image.header.set_slope_inter(1, 0)
    nib.save(image, tmp_path / "in.nii.gz")

    volume = read_volume(tmp_path / "in.nii.gz", modality="CT")
    write_volume(tmp_path / name, volume, provenance=PROVENANCE)
    before, after = nib.load(tmp_path / "in.nii.gz"), nib.load(tmp_path / name)

    assert isinstance(after, kind)
    assert after.get_data_dtype() == np.dtype(dtype)
    np.testing.assert_array_equal(np.asarray(after.dataobj), np.asarray(before.dataobj))
    for field in (
        *CODES,
        "pixdim",
        "srow_x",
        "srow_y",
        "srow_z",
        "quatern_b",
        "quatern_c",
        "quatern_d",
        "dim",
    ):
        np.testing.assert_array_equal(after.header[field], before.header[field], err_msg=field)
    again = read_volume(tmp_path / name)
    np.testing.assert_array_equal(again.affine, volume.affine)
    assert again.synthetic == PROVENANCE
    assert again.modality == "CT"


@pytest.mark.parametrize(("code", "mm_per_unit"), [(1, 1000.0), (3, 0.001)])
def test_the_unit_of_length_is_kept(tmp_path: Path, code: int, mm_per_unit: float):
    volume = read_volume(write_nifti(tmp_path / "in.nii", units(code, mm_per_unit)))
    np.testing.assert_allclose(volume.affine, LPS_AFFINE, rtol=1e-6)
    write_volume(tmp_path / "out.nii", volume, provenance=PROVENANCE)
    header = nib.load(tmp_path / "out.nii").header
    assert header["xyzt_units"] == code
    np.testing.assert_allclose(header["pixdim"][1] * mm_per_unit, 1.5, rtol=1e-6)
    np.testing.assert_array_equal(read_volume(tmp_path / "out.nii").affine, volume.affine)


def test_scaling_is_kept(tmp_path: Path):
    volume = read_volume(write_nifti(tmp_path / "in.nii.gz", nifti_bytes(scl_slope=0.5, scl_inter=-10.0)))
    np.testing.assert_array_equal(volume.values(), ct_voxels() * 0.5 - 10)
    write_volume(tmp_path / "out.nii.gz", volume, provenance=PROVENANCE)
    again = read_volume(tmp_path / "out.nii.gz")
    assert (again.slope, again.intercept) == (0.5, -10.0)
    np.testing.assert_array_equal(again.voxels, volume.voxels)


def test_slope_zero_means_no_scaling(tmp_path: Path):
    volume = read_volume(write_nifti(tmp_path / "in.nii", nifti_bytes(scl_slope=0.0, scl_inter=55.0)))
    np.testing.assert_array_equal(volume.values(), ct_voxels())


def test_one_volume_of_a_four_dimensional_file(tmp_path: Path):
    series = np.stack([ct_voxels() + k for k in range(3)], axis=-1)
    for name in ("in.nii", "in.nii.gz"):
        nib.save(nib.Nifti1Image(series, LPS_AFFINE), tmp_path / name)
        for k in range(3):
            np.testing.assert_array_equal(read_volume(tmp_path / name, volume_index=k).voxels, series[..., k])
        with pytest.raises(InputError, match="0 to 2, got 3"):
            read_volume(tmp_path / name, volume_index=3)
        with pytest.raises(InputError, match="0 to 2, got -1"):
            read_volume(tmp_path / name, volume_index=-1)
    volume = read_volume(tmp_path / "in.nii", volume_index=1)
    write_volume(tmp_path / "out.nii", volume, provenance=PROVENANCE)
    assert nib.load(tmp_path / "out.nii").shape == ct_voxels().shape


def test_nothing_of_the_patient_is_carried_over(tmp_path: Path):
    image = nib.Nifti1Image(ct_voxels(), LPS_AFFINE)
    for field in ("descrip", "db_name", "aux_file", "intent_name"):
        image.header[field] = b"Doe Jane 4711"
    for code in (0, 2, 4, 6):  # unknown, DICOM, AFNI, comment
        image.header.extensions.append(Nifti1Extension(code, b"PatientName=Doe^Jane 4711"))
    nib.save(image, tmp_path / "in.nii.gz")
    volume = read_volume(tmp_path / "in.nii.gz")
    write_volume(tmp_path / "out.nii", volume, provenance=PROVENANCE)
    for written in ("out.nii", "out.json"):
        content = (tmp_path / written).read_bytes()
        assert b"Doe" not in content
        assert b"4711" not in content
    assert nib.load(tmp_path / "out.nii").header["descrip"].item().startswith(b"synthetic")


def test_others_read_the_provenance(tmp_path: Path):
    """One comment extension, compact JSON; the voxels begin right after it and nibabel sees both."""
    volume = read_volume(write_nifti(tmp_path / "in.nii", nifti_bytes()))
    write_volume(tmp_path / "out.nii.gz", volume, provenance=PROVENANCE)
    image = nib.load(tmp_path / "out.nii.gz")
    (extension,) = image.header.extensions
    assert extension.get_code() == 6
    assert json.loads(extension.get_content()) == PROVENANCE
    assert json.loads((tmp_path / "out.json").read_text()) == PROVENANCE
    np.testing.assert_array_equal(np.asarray(image.dataobj), ct_voxels())


def test_the_label_survives_eight_round_trips(tmp_path: Path):
    path = write_nifti(tmp_path / "0.nii.gz", nifti_bytes())
    volume = read_volume(path)
    write_volume(tmp_path / "1.nii.gz", volume, provenance=PROVENANCE)
    for k in range(1, 9):
        again = read_volume(tmp_path / f"{k}.nii.gz")
        assert again.synthetic == PROVENANCE
        write_volume(tmp_path / f"{k + 1}.nii.gz", again, provenance=again.synthetic)
    np.testing.assert_array_equal(again.voxels, volume.voxels)
    np.testing.assert_array_equal(again.affine, volume.affine)


def test_an_edited_affine_is_written(tmp_path: Path):
    from dataclasses import replace

    moved = LPS_AFFINE.copy()
    moved[:3, 3] += 25
    volume = replace(read_volume(write_nifti(tmp_path / "in.nii", nifti_bytes())), affine=moved)
    write_volume(tmp_path / "out.nii", volume, provenance=PROVENANCE)
    image = nib.load(tmp_path / "out.nii")
    np.testing.assert_allclose(image.get_sform(), moved, atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), moved, atol=1e-5)


@pytest.mark.parametrize("dtype", ["int16", "uint8", "uint16", "float32", "int64", "uint64"])
def test_values_come_back_to_the_same_voxels(tmp_path: Path, dtype: str):
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        voxels = rng.normal(0, 1e4, (6, 5, 4)).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        voxels = rng.integers(limits.min, limits.max, (6, 5, 4), dtype, endpoint=True)
        voxels[0, 0, :2] = limits.min, limits.max
    nib.save(nib.Nifti1Image(voxels, LPS_AFFINE, dtype=dtype), tmp_path / "in.nii")
    volume = read_volume(tmp_path / "in.nii")
    np.testing.assert_array_equal(volume.with_values(volume.values()).voxels, voxels)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    slope=st.floats(1e-3, 1e3) | st.floats(-1e3, -1e-3),
    intercept=st.floats(-1e4, 1e4),
    seed=st.integers(0, 9),
)
def test_changed_values_round_and_saturate_unchanged_ones_stay(slope: float, intercept: float, seed: int):
    from napari_meduet.volumes.volume import Volume

    rng = np.random.default_rng(seed)
    voxels = rng.integers(-(2**15), 2**15, (5, 4, 3)).astype(np.int16)
    volume = Volume(
        voxels=voxels,
        affine=np.eye(4),
        slope=slope,
        intercept=intercept,
        modality="MR",
        unit="arbitrary",
        sha256="",
    )
    values = volume.values()
    changed = rng.random(values.shape) < 0.5
    values[changed] += np.float32(3e5 * slope)
    stored = volume.with_values(values).voxels
    np.testing.assert_array_equal(stored[~changed], voxels[~changed])
    assert set(np.unique(stored[changed])) <= {32767}


def test_values_that_are_not_finite_are_never_stored(tmp_path: Path):
    volume = read_volume(write_nifti(tmp_path / "in.nii", nifti_bytes()))
    values = volume.values()
    values[1, 1, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        volume.with_values(values)


def test_real_scans_come_back_bit_for_bit(shared_data: Path, tmp_path: Path):
    index = json.loads((shared_data / "index.json").read_text())
    for domain in ("ct-chest-rider-ge", "mr-brain-brats2021", "mr-torso-basel-totalseg"):
        record = next(record for record in index if record["domain"] == domain)
        volume = read_volume(shared_data / record["path"])
        assert volume.modality == record["modality"]
        assert volume.voxels.shape == tuple(record["shape"])
        np.testing.assert_allclose(volume.spacing_mm, record["spacing_mm"], atol=0.01)
        write_volume(tmp_path / "out.nii.gz", volume, provenance=PROVENANCE, overwrite=True)
        again = read_volume(tmp_path / "out.nii.gz")
        np.testing.assert_array_equal(again.voxels, volume.voxels)
        np.testing.assert_array_equal(again.affine, volume.affine)


def test_the_modality_of_every_real_scan_is_guessed_right(shared_data: Path):
    for record in json.loads((shared_data / "index.json").read_text()):
        volume = read_volume(shared_data / record["path"])
        assert volume.modality == record["modality"], record["path"]
        assert len(volume.warnings) == 1, record["path"]
