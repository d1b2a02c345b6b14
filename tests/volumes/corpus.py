"""Scans made by hand, good ones and bad: each bad file has one thing wrong, and says what must be said of it.

`CASES` is the list that test_bad_files.py judges. Everything is small enough to make in milliseconds, bombs
included: what makes a bomb is the size it declares.
"""

import gzip
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

SHAPE = (12, 10, 8)
SPACING = (1.5, 2.0, 3.0)
LPS_AFFINE = np.array([[-1.5, 0, 0, 8.0], [0, -2.0, 0, 9.0], [0, 0, 3.0, -10.0], [0, 0, 0, 1]])

# Where fields of a NIfTI-1 header lie, and their struct format.
FIELDS = {
    "sizeof_hdr": (0, "i"), "dim0": (40, "h"), "dim1": (42, "h"), "dim3": (46, "h"), "dim4": (48, "h"),
    "intent_code": (68, "h"), "datatype": (70, "h"), "bitpix": (72, "h"), "pixdim0": (76, "f"),
    "pixdim1": (80, "f"), "pixdim3": (88, "f"), "vox_offset": (108, "f"), "scl_slope": (112, "f"),
    "scl_inter": (116, "f"), "xyzt_units": (123, "b"), "qform_code": (252, "h"), "sform_code": (254, "h"),
    "quatern_b": (256, "f"), "qoffset_x": (268, "f"), "srow_x0": (280, "f"), "srow_x1": (284, "f"),
    "srow_x3": (292, "f"), "srow_y0": (296, "f"), "srow_z1": (316, "f"), "srow_z2": (320, "f"),
    "magic": (344, "4s"), "extender": (348, "B"),
}  # fmt: skip


def ct_voxels(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A gradient of soft tissue with air around it, in HU."""
    rng = np.random.default_rng(7)
    voxels = rng.integers(-60, 120, shape).astype(np.int16)
    voxels[: shape[0] // 3] = -1000
    return np.asfortranarray(voxels)


def nifti_bytes(
    voxels: np.ndarray | None = None, affine: np.ndarray = LPS_AFFINE, **fields: float | bytes
) -> bytearray:
    """A sound NIfTI-1 file, then single header fields overwritten."""
    image = nib.Nifti1Image(ct_voxels() if voxels is None else voxels, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units("mm")
    content = bytearray(image.to_bytes())
    for field, value in fields.items():
        offset, kind = FIELDS[field]
        struct.pack_into(f"<{kind}", content, offset, value)
    return content


def write_nifti(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(bytes(content), 6) if path.suffix == ".gz" else bytes(content))
    return path


@dataclass(frozen=True)
class Case:
    """One bad or doubtful file.

    `says` must stand in the message (refuse) or in one of the warnings (warn); a file to `load` has no
    warning but the guess of its modality.
    """

    name: str
    build: Callable[[Path], Path]  # writes into a folder and returns what to open
    verdict: Literal["refuse", "warn", "load"]
    says: str = ""


def nifti(name: str, verdict: Literal["refuse", "warn", "load"], says: str, **options) -> Case:
    suffix = options.pop("suffix", ".nii.gz")
    make = options.pop("make", None)

    def build(folder: Path) -> Path:
        content = make() if make else nifti_bytes(**options)
        return write_nifti(folder / f"scan{suffix}", content)

    return Case(name, build, verdict, says)


def raw(name: str, verdict: Literal["refuse", "warn", "load"], says: str, file_name: str, make) -> Case:
    """Bytes written as they are."""

    def build(folder: Path) -> Path:
        (folder / file_name).write_bytes(make())
        return folder / file_name

    return Case(name, build, verdict, says)


def packed(**options) -> bytes:
    return gzip.compress(bytes(nifti_bytes(**options)), 6)


def flipped(position: int) -> bytes:
    content = bytearray(packed())
    content[position] ^= 0x10
    return bytes(content)


def sheared(degrees: float) -> np.ndarray:
    affine = LPS_AFFINE.copy()
    affine[1, 2] = 3.0 * np.tan(np.radians(degrees))
    return affine


def with_extension(size: int, declared: int | None = None) -> bytes:
    content = nifti_bytes(vox_offset=352.0 + size, extender=1)
    head, voxels = content[:352], content[352:]
    block = struct.pack("<ii", size if declared is None else declared, 4) + bytes(size - 8)
    return bytes(head + block + voxels)


def holding(value: float, where: tuple[int, ...] | None = (3, 4, 5)) -> np.ndarray:
    voxels = ct_voxels().astype(np.float32)
    voxels[... if where is None else where] = value
    return voxels


def sform_only(affine: np.ndarray, **fields) -> bytearray:
    """The sform replaced after a sound file was made: qform and pixdim keep the old grid."""
    content = nifti_bytes(**fields)
    struct.pack_into("<12f", content, 280, *affine[:3].astype(float).ravel())
    return content


def scaled_affine(factor: float) -> np.ndarray:
    return np.diag([factor, factor, factor, 1]) @ LPS_AFFINE


def units(code: int, mm_per_unit: float) -> bytearray:
    return nifti_bytes(affine=scaled_affine(1 / mm_per_unit), xyzt_units=code)


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "scan.nii.gz")
    return folder / "scan.nii.gz"


def socket_link(folder: Path) -> Path:
    (folder / "scan.nii").symlink_to("/dev/zero")
    return folder / "scan.nii"


def loop_link(folder: Path) -> Path:
    (folder / "scan.nii").symlink_to("scan.nii")
    return folder / "scan.nii"


def forbidden(folder: Path) -> Path:
    path = write_nifti(folder / "scan.nii.gz", nifti_bytes())
    path.chmod(0)
    return path


def missing(folder: Path) -> Path:
    return folder / "scan.nii.gz"


def non_utf8(name: bytes, content: Callable[[], bytes]) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        path = os.path.join(os.fsencode(folder), name)
        with open(path, "wb") as file:
            file.write(content())
        return Path(os.fsdecode(path))

    return build


def declared_huge(**fields) -> bytearray:
    return nifti_bytes(**fields)


def mismatched_qform(affine: np.ndarray, code: int = 1) -> bytearray:
    image = nib.Nifti1Image(ct_voxels(), LPS_AFFINE)
    image.header.set_xyzt_units("mm")
    image.set_sform(LPS_AFFINE, 1)
    image.set_qform(affine, code)
    image.header["pixdim"][1:4] = SPACING
    return bytearray(image.to_bytes())


def mirrored(affine: np.ndarray) -> np.ndarray:
    return np.diag([-1, 1, 1, 1]) @ affine


# Text headers -----------------------------------------------------------------------------------------------


def nrrd_bytes(
    voxels: np.ndarray | None = None, compress: bool = True, cut: int | None = None, **fields
) -> bytes:
    voxels = ct_voxels() if voxels is None else voxels
    header = {
        "type": "short",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, voxels.shape)),
        "space directions": "(1.5,0,0) (0,2,0) (0,0,3)",
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "gzip" if compress else "raw",
        "space origin": "(-8,-9,-10)",
    } | {key.replace("_", " "): value for key, value in fields.items()}
    text = "NRRD0004\n" + "".join(f"{key}: {value}\n" for key, value in header.items() if value is not None)
    data = voxels.tobytes(order="F")
    return (text + "\n").encode() + (gzip.compress(data) if compress else data)[:cut]


def mha_bytes(
    voxels: np.ndarray | None = None, compress: bool = True, cut: int | None = None, **fields
) -> bytes:
    voxels = ct_voxels() if voxels is None else voxels
    header = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": str(compress),
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "-8 -9 -10",
        "ElementSpacing": "1.5 2 3",
        "DimSize": " ".join(map(str, voxels.shape)),
        "ElementType": "MET_SHORT",
    } | fields
    text = "".join(f"{key} = {value}\n" for key, value in header.items() if value is not None)
    data = voxels.tobytes(order="F")
    return (text + "ElementDataFile = LOCAL\n").encode() + (zlib.compress(data) if compress else data)[:cut]


def detached(name: str) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        text = mha_bytes(compress=False, cut=0).replace(b"LOCAL", name.encode())
        (folder / "scan.mhd").write_bytes(text)
        return folder / "scan.mhd"

    return build


# DICOM ------------------------------------------------------------------------------------------------------


def dicom_slice(k: int, **fields) -> Dataset:
    """Slice k of an axial CT series: 10 rows, 12 columns, 3 mm steps. A field set to None is left out."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = f"1.2.3.4.{k + 1}"
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "4711"
    voxels = ct_voxels()
    values = {
        "Modality": "CT",
        "SeriesInstanceUID": "1.2.3.4",
        "StudyInstanceUID": "1.2.3",
        "SeriesNumber": 3,
        "SeriesDescription": "Thorax",
        "InstanceNumber": k + 1,
        "AcquisitionNumber": 1,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "ImagePositionPatient": [-8, -9, -10 + 3 * k],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [2.0, 1.5],
        "Rows": SHAPE[1],
        "Columns": SHAPE[0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "PixelData": (voxels[:, :, k % SHAPE[2]].T.astype(np.int32) + 1024).astype(np.uint16).tobytes(),
    } | fields
    for field, value in values.items():
        if value is not None:
            setattr(dataset, field, value)
    return dataset


def dicom_series(
    folder: Path,
    edit: Callable[[int], dict | None] = lambda k: {},
    num_slices: int = SHAPE[2],
    prefix: str = "CT.",
) -> Path:
    """A folder of slices; `edit` gives fields to change in slice k, or None to leave the slice out."""
    folder = folder / "series"
    folder.mkdir(exist_ok=True)
    for k in range(num_slices):
        fields = edit(k)
        if fields is not None:
            dicom_slice(k, **fields).save_as(folder / f"{prefix}1.2.3.4.{k + 1}", enforce_file_format=True)
    return folder


def series(name: str, verdict: Literal["refuse", "warn", "load"], says: str, edit, **options) -> Case:
    return Case(name, lambda folder: dicom_series(folder, edit, **options), verdict, says)


def two_series(folder: Path) -> Path:
    dicom_series(folder)
    return dicom_series(folder, lambda k: {"SeriesInstanceUID": "1.2.3.5", "SeriesNumber": 4}, prefix="MR.")


def two_phases(folder: Path) -> Path:
    dicom_series(folder)
    return dicom_series(folder, lambda k: {"AcquisitionNumber": 2}, prefix="late.")


def copied_slice(folder: Path) -> Path:
    path = dicom_series(folder)
    (path / "copy").write_bytes((path / "CT.1.2.3.4.3").read_bytes())
    return path


def cut_slice(folder: Path) -> Path:
    path = dicom_series(folder)
    content = (path / "CT.1.2.3.4.4").read_bytes()
    (path / "CT.1.2.3.4.4").write_bytes(content[:-50])
    return path


def one_slice(folder: Path) -> Path:
    return dicom_series(folder) / "CT.1.2.3.4.1"


def empty_folder(folder: Path) -> Path:
    (folder / "series").mkdir()
    return folder / "series"


def with_junk(folder: Path) -> Path:
    path = dicom_series(folder)
    (path / "notes.txt").write_text("read me")
    return path


def deflated_bomb(folder: Path) -> Path:
    path = folder / "bomb.dcm"
    dataset = dicom_slice(0)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    head = path.read_bytes()[: _end_of_meta(path)]
    deflater = zlib.compressobj(9, wbits=-15)
    zeros = bytes(2**20)
    body = deflater.compress(struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 2**31 - 2))
    body += b"".join(deflater.compress(zeros) for _ in range(256))
    path.write_bytes(head + body + deflater.flush())
    return path


def _end_of_meta(path: Path) -> int:
    return 132 + 12 + pydicom.filereader.read_file_meta_info(path).FileMetaInformationGroupLength


def meta_bomb(folder: Path) -> Path:
    path = dicom_series(folder) / "CT.1.2.3.4.1"
    content = path.read_bytes()
    bomb = struct.pack("<HH2sHI", 0x0002, 0x0102, b"OB", 0, 2**31 - 2)
    path.write_bytes(content[:132] + bomb + content[132:])
    return path


def element_bomb(folder: Path) -> Path:
    """A private element of 2 GiB before the image: nothing after it can be read."""
    path = dicom_series(folder) / "CT.1.2.3.4.1"
    content = path.read_bytes()
    start = _end_of_meta(path)
    bomb = struct.pack("<HH2sHI", 0x0007, 0x1001, b"OB", 0, 2**31 - 2)
    path.write_bytes(content[:start] + bomb + content[start:])
    return path


def enhanced(
    folder: Path, rescale: bool = True, repeat: bool = False, cut: int | None = None, num_times: int = 1
) -> Path:
    """All slices in one Enhanced CT file; place and rescale in its functional groups."""
    dataset = dicom_slice(0, RescaleSlope=None, RescaleIntercept=None, PixelSpacing=None)
    for field in ("ImagePositionPatient", "ImageOrientationPatient"):
        delattr(dataset, field)
    dataset.NumberOfFrames = SHAPE[2] * num_times
    shared, frames = Dataset(), []
    turned, measures = Dataset(), Dataset()
    turned.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing = [2.0, 1.5]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Sequence([turned]), Sequence([measures])
    if rescale:
        values = Dataset()
        values.RescaleSlope, values.RescaleIntercept = 1, -1024
        shared.PixelValueTransformationSequence = Sequence([values])
    for time, k in product(range(num_times), range(SHAPE[2])):
        frame, place, content = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [-8, -9, -10 + 3 * (0 if repeat and k == 1 else k)]
        content.TemporalPositionIndex = time + 1
        frame.PlanePositionSequence, frame.FrameContentSequence = Sequence([place]), Sequence([content])
        frames.append(frame)
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    stored = (ct_voxels().astype(np.int32) + 1024).astype(np.uint16)
    times = [(stored + time).astype(np.uint16) for time in range(num_times)]
    dataset.PixelData = b"".join(scan[:, :, k].T.tobytes() for scan in times for k in range(SHAPE[2]))[:cut]
    dataset.save_as(folder / "enhanced.dcm", enforce_file_format=True)
    return folder / "enhanced.dcm"


TILT = np.tan(np.radians(12))

CASES = [
    # The file as such
    Case("no_such_file", missing, "refuse", "no such file"),
    Case("named_pipe", fifo, "refuse", "regular file"),
    Case("device", socket_link, "refuse", "regular file"),
    Case("symlink_loop", loop_link, "refuse", "cannot be opened"),
    raw("empty", "refuse", "empty", "scan.nii.gz", lambda: b""),
    raw("text", "refuse", "not a NIfTI", "scan.nii", lambda: b"This is not a scan. " * 100),
    raw("text_named_gz", "refuse", "not a NIfTI", "scan.nii.gz", lambda: b"This is not a scan. " * 100),
    raw("png", "refuse", "not a NIfTI", "scan.nii", lambda: b"\x89PNG\r\n\x1a\n" + bytes(600)),
    raw("zeros", "refuse", "not a NIfTI", "scan.nii", lambda: bytes(5000)),
    raw("one_byte", "refuse", "cut short", "scan.nii", lambda: b"\x5c"),
    Case("name_not_utf8", non_utf8(b"sc\xff\xfean.nii.gz", packed), "load"),
    Case("name_not_utf8_nrrd", non_utf8(b"sc\xff\xfean.nrrd", nrrd_bytes), "load"),
    Case("name_unicode", non_utf8("Übung 患者.nii.gz".encode(), packed), "load"),
    # Compression
    raw("gzip_cut_in_half", "refuse", "cut short", "scan.nii.gz", lambda: packed()[: len(packed()) // 2]),
    raw("gzip_without_trailer", "refuse", "cut short", "scan.nii.gz", lambda: packed()[:-8]),
    raw("gzip_half_a_trailer", "refuse", "cut short", "scan.nii.gz", lambda: packed()[:-3]),
    raw("gzip_header_only", "refuse", "cut short", "scan.nii.gz", lambda: packed()[:10]),
    raw("gzip_wrong_crc", "refuse", "damaged", "scan.nii.gz", lambda: flipped(-8)),
    raw("gzip_wrong_length", "refuse", "damaged", "scan.nii.gz", lambda: flipped(-2)),
    raw("gzip_flipped_bit", "refuse", "scan.nii.gz", "scan.nii.gz", lambda: flipped(len(packed()) // 2)),
    raw(
        "gzip_two_members",
        "load",
        "",
        "scan.nii.gz",
        lambda: gzip.compress(bytes(nifti_bytes())[:700]) + gzip.compress(bytes(nifti_bytes())[700:]),
    ),
    raw("gzip_zero_padding", "load", "", "scan.nii.gz", lambda: packed() + bytes(300)),
    raw("gzip_trailing_bytes", "warn", "were ignored", "scan.nii.gz", lambda: packed() + b"trailing"),
    raw(
        "gzip_trailing_megabytes",
        "refuse",
        "more than 1 MiB",
        "scan.nii.gz",
        lambda: packed() + b"x" * (3 * 2**20),
    ),
    raw(
        "gzip_bomb",
        "refuse",
        "more than 1 MiB",
        "scan.nii.gz",
        lambda: gzip.compress(bytes(nifti_bytes()) + bytes(2**28), 6),
    ),
    raw("gzip_named_nii", "load", "", "scan.nii", packed),
    raw("plain_named_gz", "load", "", "scan.nii.gz", lambda: bytes(nifti_bytes())),
    raw("plain_cut_in_half", "refuse", "cut short", "scan.nii", lambda: bytes(nifti_bytes())[:1000]),
    raw("plain_cut_by_one", "refuse", "cut short", "scan.nii", lambda: bytes(nifti_bytes())[:-1]),
    raw("plain_header_only", "refuse", "cut short", "scan.nii", lambda: bytes(nifti_bytes())[:352]),
    raw("plain_trailing_bytes", "warn", "were ignored", "scan.nii", lambda: bytes(nifti_bytes()) + b"x" * 99),
    raw(
        "plain_trailing_megabytes",
        "refuse",
        "more than 1 MiB",
        "scan.nii",
        lambda: bytes(nifti_bytes()) + bytes(2 * 2**20),
    ),
    # What is no scan
    nifti("two_dimensional", "refuse", "two-dimensional", voxels=ct_voxels()[:, :, 0]),
    nifti("one_slice", "refuse", "two-dimensional", voxels=ct_voxels()[:, :, :1]),
    nifti("four_dimensional", "refuse", "volume_index", voxels=np.stack([ct_voxels()] * 3, axis=-1)),
    nifti("four_dimensional_of_one", "load", "", voxels=ct_voxels()[..., None]),
    nifti(
        "five_dimensional",
        "refuse",
        "5 dimensions",
        voxels=np.stack([ct_voxels()] * 3, axis=-1)[:, :, :, None],
    ),
    nifti("rgb", "refuse", "RGB", voxels=np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))),
    nifti("complex", "refuse", "complex", voxels=ct_voxels().astype(np.complex64)),
    nifti("one_bit", "refuse", "single bits", datatype=1, bitpix=1),
    nifti("float128", "refuse", "128-bit", datatype=1536, bitpix=128),
    nifti("unknown_datatype", "refuse", "datatype 777", datatype=777),
    nifti("bitpix_contradicts", "refuse", "bitpix", bitpix=32),
    nifti("image_of_a_pair", "refuse", ".hdr/.img", magic=b"ni1\0"),
    nifti("wrong_magic", "refuse", "magic", magic=b"abc\0"),
    # Voxels
    nifti("some_nan", "refuse", "NaN", voxels=holding(np.nan)),
    nifti("all_nan", "refuse", "NaN", voxels=holding(np.nan, None)),
    nifti("one_infinite", "refuse", "infinite", voxels=holding(-np.inf)),
    nifti("overflowing_slope", "refuse", "slope", scl_slope=1e37, scl_inter=0.0),
    nifti("beyond_32_bits", "refuse", "32-bit", voxels=ct_voxels() * 1e60),
    nifti("constant", "warn", "empty", voxels=np.full(SHAPE, 7, np.int16)),
    nifti(
        "uint16_above_32767",
        "warn",
        "modality",
        voxels=np.linspace(0, 65535, int(np.prod(SHAPE))).reshape(SHAPE).astype(np.uint16),
    ),
    nifti("implausible_hu", "warn", "Hounsfield", voxels=ct_voxels().astype(np.int32) * 1000),
    # Scaling
    nifti("slope_zero_with_intercept", "warn", "scl_inter 55", scl_slope=0.0, scl_inter=55.0),
    nifti("slope_nan", "load", "", scl_slope=np.nan, scl_inter=np.nan),
    nifti("slope_infinite", "refuse", "scl_slope", scl_slope=np.inf),
    nifti("intercept_nan", "refuse", "scl_inter", scl_slope=1.0, scl_inter=np.nan),
    # Spacing and units
    nifti("pixdim_zero", "refuse", "pixdim[1]", pixdim1=0.0),
    nifti("pixdim_zero_without_affine", "refuse", "pixdim[3]", pixdim3=0.0, sform_code=0, qform_code=0),
    nifti("pixdim_nan", "refuse", "pixdim[1]", pixdim1=np.nan),
    nifti("pixdim_infinite", "refuse", "pixdim[3]", pixdim3=np.inf, sform_code=0, qform_code=0),
    nifti("pixdim_negative", "refuse", "pixdim[1]", pixdim1=-1.5),
    nifti("spacing_900_mm", "refuse", "900 mm", make=lambda: nifti_bytes(affine=np.diag([900.0, 2, 3, 1]))),
    nifti(
        "spacing_a_micron", "refuse", "spacing", make=lambda: nifti_bytes(affine=np.diag([0.001, 2, 3, 1]))
    ),
    nifti(
        "four_metres_long",
        "refuse",
        "m long",
        make=lambda: nifti_bytes(np.zeros((300, 2, 2), np.int16), np.diag([15.0, 2, 3, 1])),
    ),
    nifti("metres", "load", "", make=lambda: units(1, 1000.0)),
    nifti("microns", "load", "", make=lambda: units(3, 0.001)),
    nifti("unknown_unit", "warn", "unknown unit", xyzt_units=5),
    nifti("no_unit", "load", "", xyzt_units=0),
    # Affines
    nifti("no_orientation", "warn", "LEFT AND RIGHT", sform_code=0, qform_code=0),
    nifti("qform_only", "load", "", sform_code=0),
    nifti("sform_only", "load", "", qform_code=0),
    nifti(
        "singular",
        "refuse",
        "singular",
        make=lambda: sform_only(np.array([[-1.5, -1.5, 0, 8], [0, 0, 0, 9], [0, 0, 3.0, -10]]), qform_code=0),
    ),
    nifti(
        "zero_column",
        "refuse",
        "spacing",
        make=lambda: sform_only(np.array([[0, 0, 0, 8], [0, -2.0, 0, 9], [0, 0, 3.0, -10]])),
    ),
    nifti("nan_in_sform", "refuse", "sform", srow_x1=np.nan),
    nifti("infinite_origin", "refuse", "sform", srow_x3=np.inf),
    nifti("distant_origin", "warn", "from the origin", srow_x3=5e6, qform_code=0),
    nifti("sheared", "warn", "perpendicular", make=lambda: sform_only(sheared(8), qform_code=0)),
    nifti("sheared_by_80_degrees", "refuse", "sform", make=lambda: sform_only(sheared(80), qform_code=0)),
    nifti("barely_sheared", "load", "", make=lambda: sform_only(sheared(0.05), qform_code=0)),
    nifti(
        "pixdim_contradicts_sform",
        "warn",
        "pixdim disagree",
        make=lambda: sform_only(LPS_AFFINE @ np.diag([1, 1, 2, 1]), qform_code=0),
    ),
    nifti(
        "qform_contradicts_sform",
        "warn",
        "disagree on the voxel spacing",
        make=lambda: sform_only(LPS_AFFINE @ np.diag([1, 1, 2, 1])),
    ),
    nifti(
        "qform_turned",
        "warn",
        "disagree on the orientation",
        make=lambda: mismatched_qform(
            nib.affines.from_matvec(nib.eulerangles.euler2mat(z=0.5) @ LPS_AFFINE[:3, :3], LPS_AFFINE[:3, 3])
        ),
    ),
    nifti(
        "qform_shifted",
        "warn",
        "mm apart",
        make=lambda: mismatched_qform(LPS_AFFINE + np.array([[0, 0, 0, 40], [0] * 4, [0] * 4, [0] * 4])),
    ),
    nifti("mirrored_forms", "warn", "MIRRORED", make=lambda: mismatched_qform(mirrored(LPS_AFFINE))),
    nifti("broken_quaternion", "warn", "qform cannot be used", quatern_b=5.0),
    nifti("broken_quaternion_alone", "refuse", "qform", quatern_b=5.0, sform_code=0),
    nifti("strange_code", "warn", "sform_code", sform_code=77),
    nifti("negative_code", "warn", "sform_code", sform_code=-3),
    nifti("strange_qfac", "warn", "qfac", pixdim0=7.0),
    # Sizes
    nifti("vox_offset_zero", "refuse", "vox_offset", vox_offset=0.0),
    nifti("vox_offset_in_header", "refuse", "vox_offset", vox_offset=100.0),
    nifti("vox_offset_nan", "refuse", "vox_offset", vox_offset=np.nan),
    nifti("vox_offset_fraction", "refuse", "vox_offset", vox_offset=352.5),
    nifti("vox_offset_2_gib", "refuse", "vox_offset", vox_offset=float(2**31)),
    nifti("vox_offset_past_the_end", "refuse", "cut short", suffix=".nii", vox_offset=4096.0),
    nifti("dim0_is_9", "refuse", "dim[0]", dim0=9),
    nifti("dim0_negative", "refuse", "dim[0]", dim0=-3),
    nifti("dim_negative", "refuse", "dim", dim1=-12),
    nifti("dim_zero", "refuse", "dim", dim1=0),
    nifti("declares_more_than_it_has", "refuse", "cut short", suffix=".nii", dim3=9),
    nifti("declares_more_than_it_has_gz", "refuse", "cut short", dim3=9),
    nifti("declares_less_than_it_has", "warn", "were ignored", dim3=7),
    nifti(
        "declares_2_tib",
        "refuse",
        "memory",
        dim1=32767,
        dim3=32767,
        make=lambda: nifti_bytes(affine=np.diag([0.05, 2, 0.05, 1]), dim1=32767, dim3=32767),
    ),
    nifti(
        "declares_3_gib_in_a_small_file",
        "refuse",
        "can hold",
        make=lambda: nifti_bytes(affine=np.diag([0.05, 2, 0.05, 1]), dim1=12000, dim3=12000),
    ),
    nifti("declares_32767_volumes", "refuse", "volume_index", dim0=4, dim4=32767),
    nifti("extension", "load", "", make=lambda: with_extension(64)),
    nifti("extension_of_100_mib", "refuse", "vox_offset", vox_offset=352.0 + 100 * 2**20, extender=1),
    nifti("extension_lies_about_its_size", "warn", "extension", make=lambda: with_extension(64, 2**31 - 16)),
    nifti("extension_of_negative_size", "warn", "extension", make=lambda: with_extension(64, -64)),
    nifti(
        "big_endian",
        "load",
        "",
        make=lambda: nib.Nifti1Image(
            ct_voxels().astype(">i2"), LPS_AFFINE, nib.Nifti1Header(endianness=">")
        ).to_bytes(),
    ),
    nifti("nifti_2", "load", "", make=lambda: nib.Nifti2Image(ct_voxels(), LPS_AFFINE).to_bytes()),
    # NRRD and MetaImage
    raw("nrrd", "load", "", "scan.nrrd", nrrd_bytes),
    raw("nrrd_raw", "load", "", "scan.nrrd", lambda: nrrd_bytes(compress=False)),
    raw("nrrd_cut", "refuse", "cut short", "scan.nrrd", lambda: nrrd_bytes(cut=-20)),
    raw("nrrd_raw_cut", "refuse", "cut short", "scan.nrrd", lambda: nrrd_bytes(compress=False, cut=-2)),
    raw(
        "nrrd_huge",
        "refuse",
        "memory",
        "scan.nrrd",
        lambda: nrrd_bytes(sizes="90000 90000 90000", space_directions="(0.02,0,0) (0,0.02,0) (0,0,0.02)"),
    ),
    raw("nrrd_lies", "refuse", "sizes", "scan.nrrd", lambda: nrrd_bytes(compress=False, sizes="12 10 9")),
    raw("nrrd_negative_size", "refuse", "sizes", "scan.nrrd", lambda: nrrd_bytes(sizes="-12 10 8")),
    raw("nrrd_words_for_sizes", "refuse", "sizes", "scan.nrrd", lambda: nrrd_bytes(sizes="a b c")),
    raw(
        "nrrd_two_dimensional",
        "refuse",
        "two-dimensional",
        "scan.nrrd",
        lambda: nrrd_bytes(ct_voxels()[:, :, 0], dimension="2", space_directions="(1,0,0) (0,1,0)"),
    ),
    raw(
        "nrrd_vectors",
        "refuse",
        "space directions",
        "scan.nrrd",
        lambda: nrrd_bytes(
            np.zeros((3, *SHAPE), np.int16), dimension="4", space_directions="none (1,0,0) (0,1,0) (0,0,1)"
        ),
    ),
    raw("nrrd_block", "refuse", "type", "scan.nrrd", lambda: nrrd_bytes(type="block")),
    raw("nrrd_bzip2", "refuse", "encoding", "scan.nrrd", lambda: nrrd_bytes(encoding="bzip2")),
    raw("nrrd_no_endian", "refuse", "endian", "scan.nrrd", lambda: nrrd_bytes(endian=None)),
    raw("nrrd_no_space", "warn", "LEFT AND RIGHT", "scan.nrrd", lambda: nrrd_bytes(space=None)),
    raw(
        "nrrd_no_directions",
        "warn",
        "LEFT AND RIGHT",
        "scan.nrrd",
        lambda: nrrd_bytes(space_directions=None, spacings="1.5 2 3"),
    ),
    raw("nrrd_no_spacing", "refuse", "spacings", "scan.nrrd", lambda: nrrd_bytes(space_directions=None)),
    raw(
        "nrrd_nan_spacing",
        "refuse",
        "space directions",
        "scan.nrrd",
        lambda: nrrd_bytes(space_directions="(nan,0,0) (0,2,0) (0,0,3)"),
    ),
    raw(
        "nrrd_sheared",
        "warn",
        "perpendicular",
        "scan.nrrd",
        lambda: nrrd_bytes(space_directions="(1.5,0,0) (0,2,0) (0,0.5,3)"),
    ),
    raw("nrrd_list_of_files", "refuse", "data file", "scan.nhdr", lambda: nrrd_bytes(data_file="LIST")),
    raw(
        "nrrd_file_elsewhere",
        "refuse",
        "data file",
        "scan.nhdr",
        lambda: nrrd_bytes(data_file="../secret.raw"),
    ),
    raw("nrrd_endless_header", "refuse", "header", "scan.nrrd", lambda: b"NRRD0004\n" + b"# x\n" * 2**19),
    raw("mha", "load", "", "scan.mha", mha_bytes),
    raw("mha_raw", "load", "", "scan.mha", lambda: mha_bytes(compress=False)),
    raw("mha_cut", "refuse", "cut short", "scan.mha", lambda: mha_bytes(cut=-10)),
    raw("mha_raw_cut", "refuse", "cut short", "scan.mha", lambda: mha_bytes(compress=False, cut=-1)),
    raw(
        "mha_channels",
        "refuse",
        "ElementNumberOfChannels",
        "scan.mha",
        lambda: mha_bytes(ElementNumberOfChannels="3"),
    ),
    raw(
        "mha_zero_spacing", "refuse", "ElementSpacing", "scan.mha", lambda: mha_bytes(ElementSpacing="0 2 3")
    ),
    raw("mha_no_spacing", "refuse", "ElementSpacing", "scan.mha", lambda: mha_bytes(ElementSpacing=None)),
    raw("mha_no_directions", "warn", "LEFT AND RIGHT", "scan.mha", lambda: mha_bytes(TransformMatrix=None)),
    raw(
        "mha_singular",
        "refuse",
        "TransformMatrix",
        "scan.mha",
        lambda: mha_bytes(TransformMatrix="1 0 0 1 0 0 0 0 1"),
    ),
    raw("mha_not_an_image", "refuse", "MetaImage", "scan.mha", lambda: b"nothing to see here\n" * 50),
    raw(
        "mha_huge",
        "refuse",
        "memory",
        "scan.mha",
        lambda: mha_bytes(DimSize="90000 90000 90000", ElementSpacing="0.02 0.02 0.02"),
    ),
    Case("mhd_file_elsewhere", detached("/etc/passwd"), "refuse", "same folder"),
    Case("mhd_file_missing", detached("scan.raw"), "refuse", "scan.raw"),
    # DICOM
    series("dicom", "load", "", lambda k: {}),
    Case("dicom_enhanced", enhanced, "load"),
    Case("dicom_junk_beside", with_junk, "warn", "notes.txt"),
    Case("dicom_no_images", empty_folder, "refuse", "no DICOM images"),
    Case("dicom_single_slice", one_slice, "refuse", "single slice"),
    Case("dicom_two_series", two_series, "refuse", "2 series"),
    Case("dicom_two_phases", two_phases, "refuse", "2 series"),
    Case("dicom_duplicate_slice", copied_slice, "refuse", "ImagePositionPatient"),
    Case("dicom_cut_slice", cut_slice, "refuse", "PixelData"),
    Case("dicom_deflated_bomb", deflated_bomb, "refuse", "deflated"),
    Case("dicom_meta_bomb", meta_bomb, "refuse", "(0002,0102)"),
    Case("dicom_element_bomb", element_bomb, "refuse", "CT.1.2.3.4.1"),
    Case(
        "dicom_enhanced_without_rescale", lambda folder: enhanced(folder, rescale=False), "refuse", "Rescale"
    ),
    Case(
        "dicom_enhanced_repeated_frame",
        lambda folder: enhanced(folder, repeat=True),
        "refuse",
        "ImagePositionPatient",
    ),
    Case("dicom_enhanced_cut", lambda folder: enhanced(folder, cut=-2), "refuse", "PixelData"),
    series("dicom_missing_slice", "refuse", "1 slice is missing", lambda k: None if k == 4 else {}),
    series(
        "dicom_two_missing_slices", "refuse", "2 slices are missing", lambda k: None if k in (3, 4) else {}
    ),
    series(
        "dicom_uneven_steps",
        "refuse",
        "unevenly",
        lambda k: {"ImagePositionPatient": [-8, -9, -10 + 3 * k + (0.4 if k > 4 else 0)]},
    ),
    series(
        "dicom_gantry_tilt",
        "warn",
        "perpendicular",
        lambda k: {"ImagePositionPatient": [-8, -9 + 3 * k * TILT, -10 + 3 * k]},
    ),
    series(
        "dicom_wandering_slices",
        "refuse",
        "straight line",
        lambda k: {"ImagePositionPatient": [-8 + 5 * (k % 2), -9, -10 + 3 * k]},
    ),
    series(
        "dicom_no_rescale", "refuse", "Rescale", lambda k: {"RescaleSlope": None, "RescaleIntercept": None}
    ),
    series("dicom_some_rescale", "refuse", "Rescale", lambda k: {"RescaleIntercept": None} if k == 2 else {}),
    series("dicom_slope_zero", "refuse", "RescaleSlope", lambda k: {"RescaleSlope": 0}),
    series("dicom_no_pixel_spacing", "refuse", "PixelSpacing", lambda k: {"PixelSpacing": None}),
    series(
        "dicom_unreadable_pixel_spacing", "refuse", "PixelSpacing", lambda k: {"PixelSpacing": [0.0, 0.0]}
    ),
    series(
        "dicom_mixed_pixel_spacing", "refuse", "PixelSpacing", lambda k: {"PixelSpacing": [2.0, 1.5 + k % 2]}
    ),
    series("dicom_no_position", "refuse", "ImagePositionPatient", lambda k: {"ImagePositionPatient": None}),
    series(
        "dicom_no_orientation",
        "refuse",
        "ImageOrientationPatient",
        lambda k: {"ImageOrientationPatient": None},
    ),
    series(
        "dicom_monochrome1", "warn", "MONOCHROME1", lambda k: {"PhotometricInterpretation": "MONOCHROME1"}
    ),
    series(
        "dicom_colours",
        "refuse",
        "PhotometricInterpretation",
        lambda k: {
            "PhotometricInterpretation": "RGB",
            "SamplesPerPixel": 3,
            "BitsAllocated": 8,
            "BitsStored": 8,
            "HighBit": 7,
            "PlanarConfiguration": 0,
        },
    ),
    series("dicom_pet", "refuse", "Modality", lambda k: {"Modality": "PT"}),
    series("dicom_no_modality", "refuse", "Modality", lambda k: {"Modality": None}),
    series("dicom_bits_contradict", "refuse", "BitsStored", lambda k: {"BitsStored": 24}),
]
