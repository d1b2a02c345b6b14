"""One DICOM file: is it sound, and which frames (slices) does it hold, where, in what numbers?

pydicom reads the header, through a reader that is bounded by the file: an element which declares 2 GiB in a
file of 3 kB cannot make it allocate them. A file that is compressed as a whole (deflated), the other kind of
bomb, is refused. Nothing that names a patient is kept.
"""

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from napari_meduet.errors import InputError
from napari_meduet.volumes.safe_open import open_regular, shown_name

DEFLATED = "1.2.840.10008.1.2.1.99"
IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
NATIVE: dict[str, Literal["<", ">"]] = {
    IMPLICIT_LITTLE_ENDIAN: "<",
    "1.2.840.10008.1.2.1": "<",  # explicit VR little endian
    "1.2.840.10008.1.2.2": ">",  # explicit VR big endian
}
RUN_LENGTH = "1.2.840.10008.1.2.5"
ENCAPSULATED = {
    "1.2.840.10008.1.2.4.50",  # JPEG baseline, 8 bit
    "1.2.840.10008.1.2.4.51",  # JPEG extended, 12 bit
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    RUN_LENGTH,
}
PIXEL_DATA = {"<": b"\xe0\x7f\x10\x00", ">": b"\x7f\xe0\x00\x10"}  # its tag
LONG_VALUES = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}

# What tells the volumes of one series apart when two slices share a position.
PHASE_FIELDS = (
    "AcquisitionNumber", "TemporalPositionIdentifier", "EchoTime", "DiffusionBValue", "TriggerTime",
    "ImageType", "StackID",
)  # fmt: skip
# Where an enhanced file keeps, frame by frame, what a classic one has at its top.
FRAME_CONTENT = (
    "FrameContentSequence", "MREchoSequence", "MRDiffusionSequence", "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence",
)  # fmt: skip
ENHANCED_NAMES = {
    "TemporalPositionIdentifier": "TemporalPositionIndex",
    "EchoTime": "EffectiveEchoTime",
    "AcquisitionNumber": "FrameAcquisitionNumber",
    "ImageType": "FrameType",
}
READ_FIELDS = (
    *PHASE_FIELDS, "BitsAllocated", "BitsStored", "Columns", "HighBit", "ImageOrientationPatient",
    "ImagePositionPatient", "LossyImageCompression", "Modality", "ModalityLUTSequence", "NumberOfFrames",
    "PerFrameFunctionalGroupsSequence", "PhotometricInterpretation", "PixelRepresentation", "PixelSpacing",
    "RescaleIntercept", "RescaleSlope", "RescaleType", "Rows", "SamplesPerPixel", "SeriesDescription",
    "SeriesInstanceUID", "SeriesNumber", "SharedFunctionalGroupsSequence",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PixelFormat:
    """How the pixels of a file are stored."""

    transfer_syntax: str
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    start: int  # of the element PixelData in the file
    num_frames: int

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(f"{'i' if self.signed else 'u'}{self.bits_allocated // 8}")


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One slice: where it lies and what its numbers mean. None: the file does not say."""

    path: Path
    index: int  # within its file
    pixels: PixelFormat
    position: tuple[float, ...] | None  # LPS mm, of the first pixel
    orientation: tuple[float, ...] | None  # LPS, along a row and along a column
    spacing_mm: tuple[float, ...] | None  # between rows, between columns
    slope: float | None
    intercept: float | None
    series_uid: str
    series_number: int
    description: str
    modality: str
    phase: tuple[tuple[str, str], ...]  # the values of PHASE_FIELDS that are there
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        return shown_name(self.path)

    @property
    def is_localizer(self) -> bool:
        return any(field == "ImageType" and "LOCALIZER" in value for field, value in self.phase)


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """All of a file, if that is not more than `max_bytes`."""
    with open_regular(path) as file:
        size = file.seek(0, io.SEEK_END)
        if size > max_bytes:
            raise InputError(
                f"{shown_name(path)}: has {size >> 20:,} MiB; at most {max_bytes >> 20:,} MiB are read."
            )
        file.seek(0)
        return file.readall()


class BoundedReader(io.BufferedReader):
    """Reads no more than the file holds, whatever is asked for; a plain read would first allocate it all."""

    def __init__(self, file: io.FileIO) -> None:
        super().__init__(file)
        self.size = self.seek(0, io.SEEK_END)
        self.seek(0)

    def read(self, size: int | None = -1, /) -> bytes:
        left = self.size - self.tell()
        return super().read(left if size is None or size < 0 else min(size, max(left, 0)))


def looks_like_dicom(start: bytes) -> bool:
    """Whether a file that begins so is DICOM: by its preamble or, if old, a first element of group 8."""
    return start[128:132] == b"DICM" or (
        start[:2] == b"\x08\x00" and start[2:4] < b"\x20\x00" and len(start) > 132
    )


def frames_in(path: Path) -> list[Frame]:
    """The frames of one DICOM file; none if the file is DICOM but holds no image. Pixels are not read."""
    name = shown_name(path)
    with open_regular(path) as file, BoundedReader(file) as stream:
        if not looks_like_dicom(stream.read(140)):
            raise InputError(f"{name}: is not a DICOM file.")
        transfer_syntax = _transfer_syntax(stream, name)
        stream.seek(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pydicom's remarks quote values; those may name the patient
                dataset = pydicom.dcmread(
                    stream, stop_before_pixels=True, force=True, specific_tags=list(READ_FIELDS)
                )
                start = stream.tell()
                if stream.read(4) != PIXEL_DATA[NATIVE.get(transfer_syntax, "<")]:
                    return _without_image(dataset, name)
                return _frames(path, dataset, _pixel_format(dataset, name, transfer_syntax, start))
        except InputError:
            raise
        except Exception as error:  # pydicom raises some of everything on damaged headers
            raise InputError(f"{name}: its DICOM header is damaged ({type(error).__name__}).") from error


def _transfer_syntax(stream: BoundedReader, name: str) -> str:
    """From the file's own meta elements, walked by hand: each must end within the file."""
    stream.seek(128)
    if stream.read(4) != b"DICM":
        return IMPLICIT_LITTLE_ENDIAN
    transfer_syntax = ""
    while len(start := stream.read(8)) == 8:
        group, element, kind, length = struct.unpack("<HH2sH", start)
        if group != 2:
            break
        if kind in LONG_VALUES:
            (length,) = struct.unpack("<I", stream.read(4).ljust(4, b"\0"))
        if stream.tell() + length > stream.size:
            raise InputError(
                f"{name}: element ({group:04x},{element:04x}) declares {length:,} bytes, but the file ends "
                f"after {stream.size - stream.tell():,}."
            )
        if element == 0x0010:
            transfer_syntax = stream.read(length).rstrip(b"\0 ").decode("latin-1")
        else:
            stream.seek(length, io.SEEK_CUR)
    if transfer_syntax == DEFLATED:
        raise InputError(
            f"{name}: TransferSyntaxUID (0002,0010) says that the whole file is deflated, which can hide "
            "any size; export it uncompressed."
        )
    if transfer_syntax not in NATIVE and transfer_syntax not in ENCAPSULATED:
        raise InputError(
            f"{name}: TransferSyntaxUID (0002,0010) {transfer_syntax or 'missing'} is not read; export the "
            "series uncompressed."
        )
    return transfer_syntax


def _without_image(dataset: Dataset, name: str) -> list[Frame]:
    if dataset.get("Modality") in (None, "", "CT", "MR") or "Rows" in dataset:
        raise InputError(f"{name}: is cut short: PixelData (7fe0,0010) is missing.")
    return []  # a report, a dose sheet, a structure set


def _pixel_format(dataset: Dataset, name: str, transfer_syntax: str, start: int) -> PixelFormat:
    if dataset.get("SamplesPerPixel", 1) != 1 or not str(
        dataset.get("PhotometricInterpretation", "MONOCHROME2")
    ).startswith("MONOCHROME"):
        raise InputError(
            f"{name}: PhotometricInterpretation (0028,0004) is {dataset.get('PhotometricInterpretation')}; "
            "a scan holds grey values, not colours."
        )
    if "ModalityLUTSequence" in dataset:
        raise InputError(
            f"{name}: its values pass through a ModalityLUTSequence (0028,3000), which is not read."
        )
    pixels = PixelFormat(
        transfer_syntax=transfer_syntax,
        rows=_integer(dataset, "Rows", name),
        columns=_integer(dataset, "Columns", name),
        bits_allocated=_integer(dataset, "BitsAllocated", name),
        bits_stored=_integer(dataset, "BitsStored", name),
        high_bit=_integer(dataset, "HighBit", name),
        signed=_integer(dataset, "PixelRepresentation", name) == 1,
        start=start,
        num_frames=int(dataset.get("NumberOfFrames") or 1),
    )
    if pixels.bits_allocated not in (8, 16, 32):
        raise InputError(
            f"{name}: BitsAllocated (0028,0100) is {pixels.bits_allocated}; 8, 16 or 32 are read."
        )
    if not 1 <= pixels.bits_stored <= pixels.high_bit + 1 <= pixels.bits_allocated:
        raise InputError(
            f"{name}: BitsStored (0028,0101) {pixels.bits_stored} and HighBit (0028,0102) {pixels.high_bit} "
            f"do not fit BitsAllocated {pixels.bits_allocated}."
        )
    if min(pixels.rows, pixels.columns, pixels.num_frames) < 1:
        raise InputError(f"{name}: Rows, Columns or NumberOfFrames is not positive.")
    return pixels


def _frames(path: Path, dataset: Dataset, pixels: PixelFormat) -> list[Frame]:
    """A frame per slice; an enhanced file tells place and rescale in its functional groups."""
    name = shown_name(path)
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    if pixels.num_frames > 1 and not per_frame:
        raise InputError(
            f"{name}: NumberOfFrames (0028,0008) is {pixels.num_frames} but "
            "PerFrameFunctionalGroupsSequence (5200,9230) does not say where each frame lies."
        )
    if per_frame and len(per_frame) != pixels.num_frames:
        raise InputError(
            f"{name}: NumberOfFrames (0028,0008) is {pixels.num_frames} but "
            f"PerFrameFunctionalGroupsSequence (5200,9230) describes {len(per_frame)}."
        )
    doubts = []
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        doubts.append(
            "PhotometricInterpretation (0028,0004) is MONOCHROME1 (dark means high): the values are taken "
            "as stored."
        )
    if str(dataset.get("LossyImageCompression", "00")) == "01":
        doubts.append("LossyImageCompression (0028,2110): the pixels were compressed with losses.")
    if dataset.get("Modality") == "CT" and dataset.get("RescaleType", "HU") not in ("HU", ""):
        doubts.append(f"RescaleType (0028,1054) is {dataset.RescaleType}, not HU.")

    frames = []
    for index in range(pixels.num_frames):
        groups = [group for group in (per_frame[index] if per_frame else None, shared) if group is not None]
        place = _group(groups, "PlanePositionSequence", dataset)
        turned = _group(groups, "PlaneOrientationSequence", dataset)
        measures = _group(groups, "PixelMeasuresSequence", dataset)
        rescale = _group(groups, "PixelValueTransformationSequence", dataset)
        content = [_first(group, sequence) for group in groups for sequence in FRAME_CONTENT]
        slope = _numbers(rescale, "RescaleSlope", name, 1)
        if slope == (0.0,):
            raise InputError(f"{name}: RescaleSlope (0028,1053) is 0; the pixels have no value.")
        intercept = _numbers(rescale, "RescaleIntercept", name, 1)
        frames.append(
            Frame(
                path=path,
                index=index,
                pixels=pixels,
                position=_numbers(place, "ImagePositionPatient", name, 3),
                orientation=_numbers(turned, "ImageOrientationPatient", name, 6),
                spacing_mm=_numbers(measures, "PixelSpacing", name, 2),
                slope=slope[0] if slope else None,
                intercept=intercept[0] if intercept else None,
                series_uid=str(dataset.get("SeriesInstanceUID") or ""),
                series_number=int(dataset.get("SeriesNumber") or 0),
                description=str(dataset.get("SeriesDescription") or ""),
                modality=str(dataset.get("Modality") or ""),
                phase=_phase([item for item in content if item is not None] + [dataset]),
                warnings=tuple(doubts),
            )
        )
    return frames


def _phase(sources: list[Dataset]) -> tuple[tuple[str, str], ...]:
    found = []
    for field in PHASE_FIELDS:
        for source in sources:
            value = source.get(ENHANCED_NAMES.get(field, field), source.get(field))
            if value not in (None, ""):
                found.append((field, str(value)))
                break
    return tuple(found)


def _group(groups: list[Dataset], sequence: str, dataset: Dataset) -> Dataset:
    """The first item of a functional group of this frame, else of all frames, else the classic header."""
    return next((item for group in groups if (item := _first(group, sequence)) is not None), dataset)


def _first(dataset: Dataset, sequence: str) -> Dataset | None:
    items = dataset.get(sequence)
    return items[0] if items else None


def _integer(dataset: Dataset, field: str, name: str) -> int:
    value = dataset.get(field)
    if value is None:
        raise InputError(f"{name}: {_with_tag(field)} is missing.")
    return int(value)


def _numbers(dataset: Dataset, field: str, name: str, count: int) -> tuple[float, ...] | None:
    """A field of so many finite numbers; None where it is absent or empty."""
    try:
        value: Any = dataset.get(field)
        if value is None or value == "":
            return None
        numbers = tuple(float(number) for number in ([value] if count == 1 else value))
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: {_with_tag(field)} does not hold numbers.") from error
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise InputError(f"{name}: {_with_tag(field)} should hold {count} finite numbers; it holds {value}.")
    return numbers


def _with_tag(field: str) -> str:
    tag = tag_for_keyword(field) or 0
    return f"{field} ({tag >> 16:04x},{tag & 0xFFFF:04x})"
