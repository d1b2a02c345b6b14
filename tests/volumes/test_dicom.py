"""DICOM series: the right slices in the right order, place and numbers; a list to choose from."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from napari_meduet.errors import InputError
from napari_meduet.volumes.files import list_series, read_volume, write_volume

from .corpus import LPS_AFFINE, SHAPE, ct_voxels, dicom_series, dicom_slice, enhanced, two_phases, two_series

EXAMPLE = "dicom/example_ct"


def itk_affine(image: sitk.Image) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ affine


def test_a_real_series_is_what_simpleitk_reads(shared_data: Path):
    """20 JPEG 2000 slices without file extension and with emptied UIDs."""
    volume = read_volume(shared_data / EXAMPLE)
    reader = sitk.ImageSeriesReader()
    names = reader.GetGDCMSeriesFileNames(str(shared_data / EXAMPLE))
    reader.SetFileNames(names)
    image = reader.Execute()
    expected = sitk.GetArrayFromImage(image).T
    affine = itk_affine(image)
    if affine[2, 2] < 0:  # its file order need not be ours
        expected = expected[:, :, ::-1]
    np.testing.assert_array_equal(volume.values(), expected)
    np.testing.assert_allclose(np.abs(volume.affine[:3, :3]), np.abs(affine[:3, :3]))
    assert volume.modality == "CT"
    assert volume.warnings == ()


def test_a_list_of_files_is_read_as_a_folder_is(shared_data: Path):
    files = sorted((shared_data / EXAMPLE).iterdir(), reverse=True)
    from_list, from_folder = read_volume(files), read_volume(shared_data / EXAMPLE)
    np.testing.assert_array_equal(from_list.voxels, from_folder.voxels)
    assert from_list.sha256 == from_folder.sha256


def test_dicom_and_nifti_overlay_exactly(shared_data: Path, tmp_path: Path):
    volume = read_volume(shared_data / EXAMPLE)
    write_volume(tmp_path / "out.nii.gz", volume, provenance={})
    again = read_volume(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(again.values(), volume.values())
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-3)
    image = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    np.testing.assert_allclose(itk_affine(image), volume.affine, atol=1e-3)


def test_the_list_says_what_there_is(tmp_path: Path):
    first, second = list_series(two_series(tmp_path))
    assert (first.number, first.modality, first.num_slices, first.shape) == (1, "CT", SHAPE[2], SHAPE)
    assert first.spacing_mm == pytest.approx((1.5, 2.0, 3.0))
    assert first.problems == second.problems == ()
    assert second.number == 2
    assert "Doe" not in repr((first, second))
    assert "4711" not in repr((first, second))


def test_a_series_is_chosen_by_number_or_uid(tmp_path: Path):
    folder = two_series(tmp_path)
    np.testing.assert_array_equal(read_volume(folder, series="2").values(), ct_voxels())
    np.testing.assert_array_equal(read_volume(folder, series="1.2.3.5").values(), ct_voxels())
    with pytest.raises(InputError, match=r"no series '7'.*1: CT, 8 slices of 12 x 10, 1\.5 x 2 x 3 mm"):
        read_volume(folder, series="7")


def test_two_phases_are_two_entries(tmp_path: Path):
    folder = two_phases(tmp_path)
    assert [(info.num_slices, info.phase) for info in list_series(folder)] == [
        (SHAPE[2], "AcquisitionNumber 1"),
        (SHAPE[2], "AcquisitionNumber 2"),
    ]
    np.testing.assert_array_equal(read_volume(folder, series="2").values(), ct_voxels())


def test_a_localizer_does_not_ask_for_a_choice(tmp_path: Path):
    folder = dicom_series(tmp_path)
    scout = dicom_slice(
        0, SeriesInstanceUID="1.2.9", SeriesNumber=1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    scout.save_as(folder / "scout", enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(folder).values(), ct_voxels())
    assert "single slice" in list_series(folder)[0].problems[0]


def test_problems_stand_in_the_list(tmp_path: Path):
    (info,) = list_series(dicom_series(tmp_path, lambda k: None if k == 3 else {}))
    assert "1 slice is missing" in info.problems[0]


def test_the_order_of_slices_comes_from_their_positions(tmp_path: Path):
    """Instance numbers and file names run the other way."""
    last = SHAPE[2] - 1
    folder = dicom_series(
        tmp_path,
        lambda k: {
            "ImagePositionPatient": [-8, -9, -10 + 3 * (last - k)],
            "PixelData": dicom_slice(last - k).PixelData,
        },
    )
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.values(), ct_voxels())
    np.testing.assert_allclose(volume.affine, LPS_AFFINE)


@pytest.mark.parametrize("rows_along", [(0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1), (0.6, 0.8, 0, 0, 0, -1)])
def test_any_plane_lies_where_simpleitk_puts_it(tmp_path: Path, rows_along: tuple[float, ...]):
    """Sagittal, coronal and oblique: every voxel at the same place with the same value."""
    normal = np.cross(rows_along[:3], rows_along[3:])
    folder = dicom_series(
        tmp_path,
        lambda k: {
            "ImageOrientationPatient": list(rows_along),
            "ImagePositionPatient": [float(x) for x in np.array([5, 6, 7]) + 2.5 * k * normal],
        },
    )
    volume = read_volume(folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    for index in ((0, 0, 0), (11, 0, 0), (3, 4, 5), (11, 9, 7)):
        place = (volume.affine @ [*index, 1])[:3] * (-1, -1, 1)
        there = image.TransformPhysicalPointToIndex([float(x) for x in place])
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(there), place, atol=1e-3)
        assert image[there] == volume.values()[index]


def test_a_tilted_gantry_is_placed_slice_by_slice(tmp_path: Path):
    tilt = np.tan(np.radians(12))
    folder = dicom_series(tmp_path, lambda k: {"ImagePositionPatient": [-8, -9 + 3 * k * tilt, -10 + 3 * k]})
    volume = read_volume(folder)
    for k in range(SHAPE[2]):
        np.testing.assert_allclose(
            (volume.affine @ [0, 0, k, 1])[:3], [8, 9 - 3 * k * tilt, -10 + 3 * k], atol=1e-9
        )
    assert any("12.0 degrees" in warning for warning in volume.warnings)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_byte_layouts(tmp_path: Path, syntax: str):
    folder = tmp_path / "series"
    folder.mkdir()
    for k in range(SHAPE[2]):
        dataset = dicom_slice(k)
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
            dataset["PixelData"].VR = "OW"
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(folder / str(k), enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(folder).values(), ct_voxels())


def test_old_files_without_preamble(tmp_path: Path):
    folder = tmp_path / "series"
    folder.mkdir()
    for k in range(SHAPE[2]):
        dataset = dicom_slice(k)
        del dataset.file_meta
        dataset.save_as(folder / str(k), implicit_vr=True, little_endian=True)
    np.testing.assert_array_equal(read_volume(folder).values(), ct_voxels())


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless], ids=["rle", "jpeg2000"])
def test_compressed_pixels(tmp_path: Path, syntax: str, shared_data: Path):
    """Run length made here; JPEG 2000 borrowed from the real series, in slices of another one's header."""
    folder = tmp_path / "series"
    folder.mkdir()
    if syntax == RLELossless:
        for k in range(SHAPE[2]):
            dataset = dicom_slice(k)
            dataset.compress(RLELossless, generate_instance_uid=False)
            dataset.save_as(folder / str(k), enforce_file_format=True)
        np.testing.assert_array_equal(read_volume(folder).values(), ct_voxels())
        return
    import pydicom

    real = pydicom.dcmread(sorted((shared_data / EXAMPLE).iterdir())[0])
    for k in range(3):
        dataset = dicom_slice(k, Rows=512, Columns=512, BitsStored=12, HighBit=11, PixelData=real.PixelData)
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
        dataset.save_as(folder / str(k), enforce_file_format=True)
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.voxels[..., 0], volume.voxels[..., 2])
    assert volume.values().min() == -1024


def test_compressed_pixels_of_another_size_are_refused_unopened(tmp_path: Path):
    """A JPEG of 60000 x 60000 in a slice of 10 x 12 would take 7 GB to decode."""
    jpeg = b"\xff\xd8\xff\xc3\x00\x0b\x10\xea\x60\xea\x60\x01\x01\x11\x00\xff\xd9"
    folder = tmp_path / "series"
    folder.mkdir()
    for k in range(3):
        dataset = dicom_slice(k, PixelData=encapsulate([jpeg]))
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.70"
        dataset.save_as(folder / str(k), enforce_file_format=True)
    with pytest.raises(InputError, match="60000 x 60000"):
        read_volume(folder)


def test_truncated_compressed_pixels_are_refused(tmp_path: Path, shared_data: Path):
    folder = tmp_path / "series"
    folder.mkdir()
    for path in sorted((shared_data / EXAMPLE).iterdir())[:3]:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / path.name).write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="cut short"):
        read_volume(folder)


def test_an_overlay_in_unused_bits_is_masked(tmp_path: Path):
    """12 bits stored of 16: the four above hold a drawing; signed pixels keep their sign."""
    stored = np.arange(120, dtype=np.int32).reshape(10, 12) * 28 - 1500
    for signed in (0, 1):
        values = stored if signed else stored + 1500
        pixels = ((values & 0x0FFF) | 0xA000).astype(np.uint16).tobytes()
        folder = dicom_series(
            tmp_path,
            lambda k, pixels=pixels, signed=signed: {
                "BitsStored": 12, "HighBit": 11, "PixelRepresentation": signed, "PixelData": pixels
            },
        )  # fmt: skip
        np.testing.assert_array_equal(read_volume(folder).voxels[..., 0], values.T)


def test_a_rescale_that_changes_from_slice_to_slice(tmp_path: Path):
    """As PET-like MR and some Philips series have it."""
    folder = dicom_series(
        tmp_path, lambda k: {"Modality": "MR", "RescaleSlope": 1 + k, "RescaleIntercept": 0}
    )
    volume = read_volume(folder)
    stored = ct_voxels().astype(np.float32) + 1024
    np.testing.assert_array_equal(volume.values(), stored * (1 + np.arange(SHAPE[2], dtype=np.float32)))
    assert volume.unit == "arbitrary"


def test_an_enhanced_file_keeps_its_rescale(tmp_path: Path):
    volume = read_volume(enhanced(tmp_path))
    np.testing.assert_array_equal(volume.values(), ct_voxels())
    np.testing.assert_allclose(volume.affine, LPS_AFFINE)


def test_two_times_in_an_enhanced_file_are_two_entries(tmp_path: Path):
    path = enhanced(tmp_path, num_times=2)
    with pytest.raises(InputError, match="2 series"):
        read_volume(path)
    for time in (0, 1):
        np.testing.assert_array_equal(read_volume(path, series=str(time + 1)).values(), ct_voxels() + time)


def test_reports_beside_the_images_are_passed_over(tmp_path: Path):
    folder = dicom_series(tmp_path)
    report = dicom_slice(0, Modality="SR", Rows=None, Columns=None, PixelData=None)
    report.save_as(folder / "report", enforce_file_format=True)
    assert read_volume(folder).warnings == ()


def test_a_list_of_what_is_no_folder_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="not a folder"):
        list_series(tmp_path / "nowhere")


def test_the_modality_given_wins(tmp_path: Path):
    folder = dicom_series(tmp_path, lambda k: {"Modality": None})
    assert read_volume(folder, modality="CT").unit == "HU"


def test_a_damaged_file_among_many_is_reported(tmp_path: Path):
    folder = dicom_series(tmp_path)
    (folder / "broken").write_bytes((folder / "CT.1.2.3.4.1").read_bytes()[:200])
    volume = read_volume(folder)
    assert any("broken" in warning for warning in volume.warnings)


@pytest.mark.parametrize("seed", range(40))
def test_mutated_slices_are_refused_or_load_finite(tmp_path: Path, seed: int):
    rng = np.random.default_rng(seed)
    folder = dicom_series(tmp_path, num_slices=3)
    path = folder / "CT.1.2.3.4.2"
    content = bytearray(path.read_bytes())
    for _ in range(rng.integers(1, 6)):
        content[rng.integers(132, len(content) if seed % 2 else 700)] = rng.integers(0, 256)
    path.write_bytes(content[: rng.integers(200, len(content))] if seed % 5 == 0 else content)
    try:
        volume = read_volume(folder, budget_bytes=2**26)
    except InputError:
        return
    assert np.isfinite(volume.values()).all()
