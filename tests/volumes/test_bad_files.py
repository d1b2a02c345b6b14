"""Bad files are refused with name and field; doubtful files load with a warning (docs/reliability.md)."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_meduet.errors import InputError
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.safe_open import shown_name

from .corpus import CASES, LPS_AFFINE, SHAPE, Case, ct_voxels, forbidden, nifti_bytes, packed

GUESSED = "The file does not name its modality"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_judged_right(case: Case, tmp_path: Path):
    path = case.build(tmp_path)
    if case.verdict == "refuse":
        with pytest.raises(InputError) as refusal:
            read_volume(path)
        message = str(refusal.value)
        assert case.says in message
        assert "\n" not in message
        assert any(shown_name(name) in message for name in (path, *tmp_path.rglob("*")))
        assert str(tmp_path) not in message  # a folder may name a patient
        return
    volume = read_volume(path)
    doubts = [warning for warning in volume.warnings if not warning.startswith(GUESSED)]
    if case.verdict == "load":
        assert doubts == []
    else:
        assert any(case.says in warning for warning in volume.warnings), volume.warnings
    assert np.isfinite(volume.values()).all()


@pytest.mark.parametrize("name", [case.name for case in CASES if case.verdict == "load"])
def test_what_loads_is_the_scan_itself(name: str, tmp_path: Path):
    (case,) = [case for case in CASES if case.name == name]
    volume = read_volume(case.build(tmp_path))
    if name == "barely_sheared":
        np.testing.assert_allclose(volume.affine, LPS_AFFINE, atol=0.01)
    else:
        np.testing.assert_allclose(volume.affine, LPS_AFFINE, atol=1e-5)
    np.testing.assert_array_equal(volume.values(), ct_voxels())


def test_a_file_without_permission_is_refused(ordinary_folder: Path):
    with pytest.raises(InputError, match=r"scan\.nii\.gz: cannot be opened \(permission denied\)"):
        read_volume(forbidden(ordinary_folder))


def test_every_single_bit_of_a_compressed_scan_counts(tmp_path: Path):
    """300 flips, evenly spread; readers in use let 253 of 300 through."""
    sound = packed()
    path = tmp_path / "scan.nii.gz"
    for position in np.linspace(0, 8 * len(sound) - 1, 300).astype(int):
        content = bytearray(sound)
        content[position // 8] ^= 1 << (position % 8)
        path.write_bytes(content)
        try:
            volume = read_volume(path)
        except InputError:
            continue
        # The gzip header's time, name and system do not belong to the scan.
        assert position // 8 < 10
        np.testing.assert_array_equal(volume.voxels, ct_voxels())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_file_is_refused_or_loads_finite(tmp_path: Path, data: st.DataObject):
    """Bytes changed, cut or added anywhere, before or after compression: never a crash, never a NaN."""
    content = bytearray(nifti_bytes())
    compressed = data.draw(st.booleans())
    header_only = data.draw(st.booleans())
    if compressed and not header_only:
        content = bytearray(packed())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, (352 if header_only else len(content)) - 1))
        content[position] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    if compressed and header_only:
        content = gzip.compress(content, 1)
    path = tmp_path / "mutated.nii.gz"
    path.write_bytes(content)
    try:
        volume = read_volume(path, budget_bytes=2**26)
    except InputError:
        return
    assert np.isfinite(volume.values()).all()
    assert np.isfinite(volume.affine).all()
    assert abs(np.linalg.det(volume.affine[:3, :3])) > 0


BOMBS = [
    "gzip_bomb",
    "declares_2_tib",
    "declares_3_gib_in_a_small_file",
    "vox_offset_2_gib",
    "extension_of_100_mib",
    "nrrd_huge",
    "mha_huge",
    "dicom_deflated_bomb",
    "dicom_meta_bomb",
    "dicom_element_bomb",
    "spacing_900_mm",
]


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_no_memory(name: str, tmp_path: Path):
    """In a process of its own: refusing may cost 64 MiB at most above what importing the reader costs."""
    (case,) = [case for case in CASES if case.name == name]
    script = """
import resource, sys
from napari_meduet.errors import InputError
from napari_meduet.volumes.files import read_volume
import napari_meduet.volumes.dicom_pixels
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_volume(sys.argv[1])
except InputError:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    answer = subprocess.run(
        [sys.executable, "-c", script, str(case.build(tmp_path))], capture_output=True, text=True, timeout=60
    )
    assert answer.stdout, answer.stderr
    assert int(answer.stdout) <= 64


def test_a_budget_is_kept(tmp_path: Path):
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(packed())
    needed = 2 * int(np.prod(SHAPE))
    assert read_volume(path, budget_bytes=needed).voxels.nbytes == needed
    with pytest.raises(InputError, match="memory"):
        read_volume(path, budget_bytes=needed - 1)


def test_memory_that_is_not_there_is_refused(tmp_path: Path):
    """A true 1024 x 1024 x 1024 scan (a file with a hole) in a process that may have 1.5 GiB."""
    path = tmp_path / "scan.nii"
    path.write_bytes(nifti_bytes(affine=np.eye(4))[:352])
    with open(path, "rb+") as file:
        for position in (42, 44, 46):
            file.seek(position)
            file.write((1024).to_bytes(2, "little"))
        file.truncate(352 + 2 * 1024**3)
    script = """
import resource, sys
from napari_meduet.errors import InputError
from napari_meduet.volumes.files import read_volume
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**29, 3 * 2**29))
try:
    read_volume(sys.argv[1])
except InputError as refusal:
    print(refusal)
"""
    answer = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60
    )
    assert "scan.nii: its voxels need 2,048 MiB" in answer.stdout, answer.stderr


def test_control_characters_in_a_name_do_not_reach_the_terminal(tmp_path: Path):
    path = tmp_path / "scan\x1b[31m\nred.nii"
    path.write_bytes(b"no scan at all")
    with pytest.raises(InputError) as refusal:
        read_volume(path)
    assert "\x1b" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_path_with_a_null_character_is_refused():
    with pytest.raises(InputError, match="cannot be opened"):
        read_volume("scan\0.nii")
