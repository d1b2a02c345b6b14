"""The pixels of a DICOM file, as stored: all of them there, overlays masked off, decoded where compressed.

Uncompressed pixels are read straight from the file's bytes. Compressed ones go to GDCM (in SimpleITK), never
in their own file: a fresh one is made around each frame that holds nothing else, so that no header of a
stranger reaches GDCM, which also would rescale, invert or guess.
"""

import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, SecondaryCaptureImageStorage, generate_uid

from napari_meduet.errors import InputError
from napari_meduet.volumes.dicom_frames import IMPLICIT_LITTLE_ENDIAN, NATIVE, RUN_LENGTH, PixelFormat

UNDEFINED = 0xFFFFFFFF
ITEM, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
PIXEL_KINDS = (b"OB", b"OW", b"UN")
JPEG_2000 = b"\xff\x4f\xff\x51"  # its first two markers


def stored_frames(data: bytes, pixels: PixelFormat, indices: list[int], name: str) -> Iterator[np.ndarray]:
    """These frames of a file one by one, each (rows, columns)."""
    start, length = _value(data, pixels, name)
    if pixels.transfer_syntax in NATIVE:
        frames = _native(data, start, length, pixels, indices, name)
    else:
        coded = _coded_frames(data, start, pixels, name)
        frames = (_decoded(coded[index], pixels, name) for index in indices)
    return (_without_overlay(frame, pixels) for frame in frames)


def _value(data: bytes, pixels: PixelFormat, name: str) -> tuple[int, int]:
    """Where the value of PixelData begins and its declared length."""
    order = NATIVE.get(pixels.transfer_syntax, "<")
    explicit = pixels.transfer_syntax != IMPLICIT_LITTLE_ENDIAN
    header = 12 if explicit else 8
    if len(data) < pixels.start + header:
        raise InputError(f"{name}: is cut short within PixelData (7fe0,0010).")
    if explicit and data[pixels.start + 4 : pixels.start + 6] not in PIXEL_KINDS:
        raise InputError(f"{name}: PixelData (7fe0,0010) is stored as no kind of pixels.")
    (length,) = struct.unpack_from(f"{order}I", data, pixels.start + header - 4)
    return pixels.start + header, length


def _native(
    data: bytes, start: int, length: int, pixels: PixelFormat, indices: list[int], name: str
) -> Iterator[np.ndarray]:
    frame_bytes = pixels.rows * pixels.columns * pixels.dtype.itemsize
    needed = frame_bytes * pixels.num_frames
    present = min(length, len(data) - start)
    if present < needed:
        raise InputError(
            f"{name}: is cut short: PixelData (7fe0,0010) has {present:,} of the {needed:,} bytes that "
            "Rows, Columns and BitsAllocated declare."
        )
    dtype = pixels.dtype.newbyteorder(NATIVE[pixels.transfer_syntax])
    return (
        np.frombuffer(data, dtype, pixels.rows * pixels.columns, start + index * frame_bytes)
        .reshape(pixels.rows, pixels.columns)
        .astype(pixels.dtype)
        for index in indices
    )


def _coded_frames(data: bytes, start: int, pixels: PixelFormat, name: str) -> list[bytes]:
    """The compressed frames, once their items were walked to the end mark."""
    position = start
    while True:
        if position + 8 > len(data):
            raise InputError(f"{name}: is cut short: its compressed pixels end without an end mark.")
        *tag, length = struct.unpack_from("<HHI", data, position)
        position += 8
        if tuple(tag) == SEQUENCE_END:
            break
        if tuple(tag) != ITEM or length == UNDEFINED or position + length > len(data):
            raise InputError(
                f"{name}: its compressed pixels are cut short or damaged at byte {position - 8:,}."
            )
        position += length
    coded = list(generate_frames(data[start:position], number_of_frames=pixels.num_frames))
    if len(coded) != pixels.num_frames:
        raise InputError(
            f"{name}: holds {len(coded)} compressed frames where {pixels.num_frames} are declared."
        )
    for frame in coded:
        _check_coded_size(frame, pixels, name)
    return coded


def _check_coded_size(coded: bytes, pixels: PixelFormat, name: str) -> None:
    """A JPEG has a size of its own; one that differs from the header's is damaged or a bomb."""
    if pixels.transfer_syntax == RUN_LENGTH:
        return
    rows, columns = _jpeg_size(coded)
    if (rows, columns) != (pixels.rows, pixels.columns):
        raise InputError(
            f"{name}: its compressed pixels are {rows} x {columns}, but Rows and Columns are {pixels.rows} x "
            f"{pixels.columns}."
        )


def _jpeg_size(coded: bytes) -> tuple[int, int]:
    """Rows and columns in a JPEG, JPEG-LS or JPEG 2000 codestream; zeros where there is no image."""
    start = coded.find(JPEG_2000, 0, 256)  # some writers put it into a file format's boxes
    if start >= 0 and len(coded) >= start + 24:
        right, lower, left, upper = struct.unpack_from(">IIII", coded, start + 8)
        return lower - upper, right - left
    position = 2
    while position + 9 <= len(coded) and coded[position] == 0xFF:
        marker = coded[position + 1]
        if marker in (0xC0, 0xC1, 0xC2, 0xC3, 0xF7):  # start of frame
            rows, columns = struct.unpack_from(">HH", coded, position + 5)
            return rows, columns
        position += 2 + struct.unpack_from(">H", coded, position + 2)[0]
    return 0, 0


def _decoded(coded: bytes, pixels: PixelFormat, name: str) -> np.ndarray:
    import SimpleITK as sitk

    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid(None)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.rows, pixels.columns
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = (
        pixels.bits_allocated,
        pixels.bits_stored,
        pixels.high_bit,
    )
    dataset.PixelRepresentation = int(pixels.signed)
    dataset.PixelData = encapsulate([coded])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(pixels.transfer_syntax)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.dcm"
        dataset.save_as(path, enforce_file_format=True)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        try:
            frame = sitk.GetArrayFromImage(reader.Execute()).squeeze()
        except RuntimeError as error:
            raise InputError(
                f"{name}: its compressed pixels cannot be decoded; they are damaged or of a kind not read."
            ) from error
    if frame.shape != (pixels.rows, pixels.columns):
        raise InputError(f"{name}: its compressed pixels decode to {frame.shape}, not to Rows x Columns.")
    return frame.astype(pixels.dtype)


def _without_overlay(frame: NDArray, pixels: PixelFormat) -> NDArray:
    """Only the stored bits of each pixel count; the others may hold a drawing over the image."""
    above = pixels.bits_allocated - 1 - pixels.high_bit
    below = pixels.high_bit + 1 - pixels.bits_stored
    if above == 0 and below == 0:
        return frame
    # Shifting up drops what is above; shifting back down drops what is below and copies the sign.
    return (frame << above) >> (above + below)
