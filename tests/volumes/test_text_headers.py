"""NRRD and MetaImage lie where SimpleITK puts them, voxel by voxel."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from napari_meduet.errors import InputError
from napari_meduet.volumes.files import read_volume

from .corpus import LPS_AFFINE, ct_voxels, mha_bytes, nrrd_bytes
from .test_dicom import itk_affine

NAMES = ["scan.nrrd", "scan.nhdr", "scan.mha", "scan.mhd"]
TYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]


def oblique_image(dtype: str) -> sitk.Image:
    voxels = (ct_voxels().clip(-100, 27)).astype(dtype)
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    image.SetSpacing((0.7, 1.1, 2.5))
    image.SetOrigin((-50.5, 20.25, 333))
    turn = sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 1.1)
    image.SetDirection(turn.GetMatrix())
    return image


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_as_simpleitk_wrote_it(tmp_path: Path, name: str, compressed: bool, dtype: str):
    image = oblique_image(dtype)
    sitk.WriteImage(image, str(tmp_path / name), useCompression=compressed)
    volume = read_volume(tmp_path / name, modality="MR")
    assert volume.voxels.dtype == dtype
    np.testing.assert_array_equal(volume.voxels, sitk.GetArrayFromImage(image).T)
    np.testing.assert_allclose(volume.affine, itk_affine(image), atol=1e-5)
    assert volume.warnings == ()


def test_big_endian(tmp_path: Path):
    swapped = ct_voxels().astype(">i2")
    (tmp_path / "a.nrrd").write_bytes(nrrd_bytes(swapped, endian="big"))
    (tmp_path / "a.mha").write_bytes(mha_bytes(swapped, BinaryDataByteOrderMSB="True"))
    for name in ("a.nrrd", "a.mha"):
        np.testing.assert_array_equal(read_volume(tmp_path / name).voxels, ct_voxels())


@pytest.mark.parametrize(
    ("space", "signs"),
    [("right-anterior-superior", (1, 1, 1)), ("RAS", (1, 1, 1)), ("left-anterior-superior", (-1, 1, 1)),
     ("left-posterior-superior", (-1, -1, 1)), ("LPS", (-1, -1, 1))],
)  # fmt: skip
def test_the_space_of_an_nrrd(tmp_path: Path, space: str, signs: tuple[int, ...]):
    (tmp_path / "a.nrrd").write_bytes(nrrd_bytes(space=space))
    lps = np.diag([-1, -1, 1, 1]) @ LPS_AFFINE
    np.testing.assert_allclose(read_volume(tmp_path / "a.nrrd").affine, np.diag([*signs, 1]) @ lps)


@pytest.mark.parametrize(("unit", "factor"), [('"mm"', 1), ('"m"', 1000), ('"um"', 0.001)])
def test_the_unit_of_an_nrrd(tmp_path: Path, unit: str, factor: float):
    directions = " ".join(f"({','.join(map(str, row))})" for row in np.diag([1.5, 2.0, 3.0]) / factor)
    (tmp_path / "a.nrrd").write_bytes(
        nrrd_bytes(space_directions=directions, space_units=f"{unit} {unit} {unit}")
    )
    assert read_volume(tmp_path / "a.nrrd").spacing_mm == pytest.approx((1.5, 2.0, 3.0))


def test_one_volume_of_four(tmp_path: Path):
    series = np.asfortranarray(np.stack([ct_voxels() + k for k in range(4)], axis=-1))
    (tmp_path / "a.nrrd").write_bytes(
        nrrd_bytes(series, dimension="4", space_directions="(1.5,0,0) (0,2,0) (0,0,3) none")
    )
    (tmp_path / "a.mha").write_bytes(
        mha_bytes(
            series, NDims="4", ElementSpacing="1.5 2 3 1", Offset="-8 -9 -10 0",
            TransformMatrix=" ".join(map(str, np.eye(4, dtype=int).ravel())),
        )
    )  # fmt: skip
    for name in ("a.nrrd", "a.mha"):
        with pytest.raises(InputError, match="4 volumes"):
            read_volume(tmp_path / name)
        volume = read_volume(tmp_path / name, volume_index=2)
        np.testing.assert_array_equal(volume.voxels, series[..., 2])
        np.testing.assert_allclose(volume.affine, LPS_AFFINE)


def test_a_metaimage_may_name_its_modality(tmp_path: Path):
    (tmp_path / "a.mha").write_bytes(mha_bytes(Modality="MET_MOD_MR"))
    volume = read_volume(tmp_path / "a.mha")
    assert volume.modality == "MR"
    assert volume.warnings == ()


def test_the_hash_covers_header_and_data(tmp_path: Path):
    sitk.WriteImage(oblique_image("int16"), str(tmp_path / "a.mhd"))
    before = read_volume(tmp_path / "a.mhd").sha256
    data = bytearray((tmp_path / "a.raw").read_bytes())
    data[7] ^= 1
    (tmp_path / "a.raw").write_bytes(data)
    changed = read_volume(tmp_path / "a.mhd").sha256
    text = (tmp_path / "a.mhd").read_text().replace("333", "334")
    (tmp_path / "a.mhd").write_text(text)
    assert len({before, changed, read_volume(tmp_path / "a.mhd").sha256}) == 3


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_mutated_files_are_refused_or_load_finite(tmp_path: Path, name: str):
    sound = nrrd_bytes() if name == "a.nrrd" else mha_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(sound)
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(0, len(content))] = rng.integers(0, 256)
        (tmp_path / name).write_bytes(content)
        try:
            volume = read_volume(tmp_path / name, budget_bytes=2**26)
        except InputError:
            continue
        assert np.isfinite(volume.values()).all()
        assert np.isfinite(volume.affine).all()
