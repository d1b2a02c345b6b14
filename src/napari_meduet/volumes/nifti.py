"""NIfTI-1 and NIfTI-2, plain or gzip-compressed: the header judged field by field, then the voxels.

The header is parsed into nibabel's own field layout, but no field is believed before it was checked: nibabel
alone shifts data without a word (vox_offset 0), takes metres for millimetres and repairs what it should
refuse.
"""

import json
import math
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from typing import Any, Literal

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.quaternions import quat2mat
from numpy.typing import NDArray

from napari_meduet.errors import InputError
from napari_meduet.volumes import checks
from napari_meduet.volumes.checked_stream import GZIP_MAGIC, CheckedStream
from napari_meduet.volumes.scan import Scan

ByteOrder = Literal["<", ">"]
BYTE_ORDERS: tuple[ByteOrder, ...] = ("<", ">")

MAX_EXTENSION_BYTES = 16 * 2**20
COMMENT_CODE = 6  # NIfTI's extension code for plain text; our provenance is compact JSON in one

VOXEL_TYPES = {
    2: "uint8", 4: "int16", 8: "int32", 16: "float32", 64: "float64",
    256: "int8", 512: "uint16", 768: "uint32", 1024: "int64", 1280: "uint64",
}  # fmt: skip
UNUSABLE_TYPES = {
    1: "single bits", 32: "complex numbers", 128: "RGB colours", 1536: "128-bit floats",
    1792: "complex numbers", 2048: "complex numbers", 2304: "RGBA colours",
}  # fmt: skip
MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unknown (by custom mm), metre, millimetre, micron

# What is carried over to a result. Everything else in a header is free text or unused.
CARRIED_FIELDS = (
    "dim_info", "dim", "intent_p1", "intent_p2", "intent_p3", "intent_code", "datatype", "bitpix",
    "slice_start", "pixdim", "scl_slope", "scl_inter", "slice_end", "slice_code", "xyzt_units", "cal_max",
    "cal_min", "slice_duration", "toffset", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip


@dataclass(frozen=True)
class RawHeader:
    """A header as its file holds it, nothing believed yet."""

    fields: Nifti1Header  # of NIfTI-1 or NIfTI-2, in this machine's byte order
    byte_order: ByteOrder  # the file's
    num_bytes: int  # with the four of the extender
    has_extensions: bool


@dataclass(frozen=True)
class Layout:
    """Where the voxels lie in the file and how they are stored."""

    shape: tuple[int, int, int]
    num_volumes: int
    dtype: np.dtype
    offset: int

    @property
    def volume_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_nifti(file: FileIO, name: str, volume_index: int | None, budget_bytes: int) -> Scan:
    """One volume of a NIfTI file; the whole file is read and checked even so."""
    compressed = file.read(2) == GZIP_MAGIC
    with CheckedStream(file, name, "gzip" if compressed else "none") as stream:
        raw = _read_header(stream)
        header = raw.fields
        layout = _layout(raw, name)
        warnings = _check_scaling(header, name)
        affine, doubts = _affine(header, name, layout.shape)
        warnings += doubts
        index = checks.choose_volume(name, "dim[4]", layout.num_volumes, volume_index)
        checks.check_memory(name, layout.shape, layout.dtype.itemsize, budget_bytes)
        needed = layout.offset + layout.num_volumes * layout.volume_bytes
        if needed > stream.most_bytes():
            raise InputError(
                f"{name}: dim and datatype declare {needed:,} bytes, but the file can hold at most "
                f"{stream.most_bytes():,}; it is cut short or its header is damaged."
            )

        comments, doubts = _extensions(stream.read(layout.offset - raw.num_bytes, "its header"), raw)
        warnings += doubts
        voxels = checks.allocate(name, layout.shape, layout.dtype)
        stream.skip(index * layout.volume_bytes, "voxels")
        stream.read_into(voxels.T.data.cast("B"), "voxels")
        stream.skip((layout.num_volumes - 1 - index) * layout.volume_bytes, "voxels")
        trailing, sha256 = stream.finish()
    warnings += checks.leftovers(trailing)
    slope, intercept = scaling(header)
    return Scan(
        voxels=checks.in_native_order(voxels),
        affine=affine,
        slope=slope,
        intercept=intercept,
        warnings=warnings,
        sha256=sha256,
        header=_carried(header, layout.shape),
        synthetic=provenance_in(comments),
    )


def header_affine(header: Nifti1Header) -> NDArray[np.float64]:
    """Voxel index -> RAS mm as a header that passed the checks says it, in millimetres whatever its unit."""
    if int(header["sform_code"]) > 0:
        affine = _sform(header)
    elif int(header["qform_code"]) > 0:
        affine = qform(header)
    else:
        affine = header.get_base_affine()
    return _in_mm(affine, header)


def scaling(header: Nifti1Header) -> tuple[float, float]:
    """Slope and intercept in effect; scl_slope 0 or NaN means that the voxels are the values."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    return (1.0, 0.0) if slope == 0 or math.isnan(slope) else (slope, intercept)


def provenance_in(comments: list[bytes]) -> Mapping[str, Any] | None:
    """The provenance that a file carries, if one of its comments is ours."""
    for comment in comments:
        try:
            content = json.loads(comment.rstrip(b"\0").decode("utf-8"))
        except (ValueError, RecursionError):  # somebody else's comment
            continue
        if isinstance(content, dict) and "synthetic" in content:
            return content
    return None


def _read_header(stream: CheckedStream) -> RawHeader:
    block = stream.read(Nifti1Header.template_dtype.itemsize, "its header")
    for kind in (Nifti1Header, Nifti2Header):
        size = kind.template_dtype.itemsize
        for order in BYTE_ORDERS:
            if int(np.frombuffer(block[:4], f"{order}i4")[0]) == size:
                block += stream.read(size - len(block), "its header")
                extender = stream.read(4, "its header")
                fields = kind(block, endianness=order, check=False)
                _check_magic(fields, stream.name)
                native = fields.as_byteswapped("<" if sys.byteorder == "little" else ">")
                return RawHeader(native, order, size + 4, extender[0] != 0)
    raise InputError(
        f"{stream.name}: is not a NIfTI file (sizeof_hdr is neither 348 nor 540), nor NRRD, MetaImage or "
        "DICOM; choose a scan."
    )


def _check_magic(fields: Nifti1Header, name: str) -> None:
    magic = bytes(fields["magic"])
    if not magic.startswith(b"n+"):
        what = "the header of a .hdr/.img pair" if magic.startswith(b"ni") else "not NIfTI"
        raise InputError(f"{name}: magic says that it is {what}; save the scan as a single .nii or .nii.gz.")


def _layout(raw: RawHeader, name: str) -> Layout:
    header = raw.fields
    num_axes = int(header["dim"][0])
    if not 1 <= num_axes <= 7:
        raise InputError(f"{name}: dim[0] is {num_axes}; an image has 1 to 7 axes.")
    shape = [int(size) for size in header["dim"][1 : num_axes + 1]]
    if min(shape) < 1:
        raise InputError(f"{name}: dim declares an axis of {min(shape)} voxels; every axis has at least one.")
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    checks.check_shape(name, "dim", tuple(shape[:3]) if len(shape) <= 4 else tuple(shape))

    code = int(header["datatype"])
    if code not in VOXEL_TYPES:
        what = UNUSABLE_TYPES.get(code, "no known type of number")
        raise InputError(f"{name}: datatype {code} is {what}; a scan holds one real number per voxel.")
    dtype = np.dtype(VOXEL_TYPES[code]).newbyteorder(raw.byte_order)
    if int(header["bitpix"]) != 8 * dtype.itemsize:
        raise InputError(
            f"{name}: bitpix is {int(header['bitpix'])} but datatype {code} ({dtype.name}) has "
            f"{8 * dtype.itemsize} bits; the header is damaged."
        )
    offset = float(header["vox_offset"])
    if not math.isfinite(offset) or offset != int(offset) or offset < raw.num_bytes:
        raise InputError(
            f"{name}: vox_offset is {offset:g}, but the voxels of a single file start at byte "
            f"{raw.num_bytes} or later."
        )
    if offset - raw.num_bytes > MAX_EXTENSION_BYTES:
        raise InputError(
            f"{name}: vox_offset leaves {(offset - raw.num_bytes) / 2**20:,.0f} MiB for header extensions; "
            f"at most {MAX_EXTENSION_BYTES // 2**20} MiB are read."
        )
    x, y, z = shape[:3]
    return Layout((x, y, z), shape[3] if len(shape) == 4 else 1, dtype, int(offset))


def _check_scaling(header: Nifti1Header, name: str) -> list[str]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if math.isinf(slope):
        raise InputError(f"{name}: scl_slope is infinite; the voxels have no value.")
    scaled = slope != 0 and not math.isnan(slope)
    if scaled and not math.isfinite(intercept):
        raise InputError(f"{name}: scl_inter is {intercept:g} although scl_slope is {slope:g}.")
    if not scaled and math.isfinite(intercept) and intercept != 0:
        return [f"scl_slope is {slope:g}, which means no scaling, so scl_inter {intercept:g} was not added."]
    return []


def _affine(header: Nifti1Header, name: str, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], list[str]]:
    """The affine in use (sform before qform before pixdim) and what contradicts it."""
    warnings = []
    unit = int(header["xyzt_units"]) & 7
    if unit not in MM_PER_UNIT:
        warnings.append(f"xyzt_units holds the unknown unit of length {unit}; millimetres are assumed.")
    scale = MM_PER_UNIT.get(unit, 1.0)
    pixdim = np.asarray(header["pixdim"][1:4], np.float64) * scale
    for axis, step in zip("123", pixdim, strict=True):
        checks.check_spacing(name, f"pixdim[{axis}]", checks.AXES[int(axis) - 1], step)
    for field in ("sform_code", "qform_code"):
        if not 0 <= int(header[field]) <= 5:
            warnings.append(f"{field} is {int(header[field])}, which NIfTI does not define.")
    if float(header["pixdim"][0]) not in (-1.0, 0.0, 1.0) and int(header["qform_code"]) > 0:
        warnings.append(
            f"pixdim[0] (qfac) is {float(header['pixdim'][0]):g} instead of 1 or -1; 1 is assumed."
        )

    candidates = {}
    if int(header["sform_code"]) > 0:
        candidates["sform"] = _in_mm(_sform(header), header)
    if int(header["qform_code"]) > 0:
        candidates["qform"] = _in_mm(qform(header), header)
    if not candidates:
        warnings.append(
            "The file does not say how the scan lies in the patient (sform_code and qform_code are 0); "
            "right to left, back to front and feet to head are assumed. LEFT AND RIGHT MAY BE SWAPPED."
        )
        candidates["pixdim"] = _in_mm(header.get_base_affine(), header)
    field, affine = next(iter(candidates.items()))
    warnings += checks.check_affine(name, field, affine, shape)
    if len(candidates) == 2:
        warnings += checks.disagreements("sform", affine, "qform", candidates["qform"], shape)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if np.any(np.abs(spacing - pixdim) > checks.SPACING_TOLERANCE * spacing):
        warnings.append(
            f"{field} and pixdim disagree on the voxel spacing ({checks.triple(spacing)} against "
            f"{checks.triple(pixdim)} mm); {field} is used."
        )
    return affine, list(dict.fromkeys(warnings))


def _in_mm(affine: NDArray[np.float64], header: Nifti1Header) -> NDArray[np.float64]:
    """All lengths of a header are in its one unit: pixdim, sform and offsets alike."""
    affine = affine.copy()
    affine[:3] *= MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    return affine


def _sform(header: Nifti1Header) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3] = [header[f"srow_{axis}"] for axis in "xyz"]
    return affine


def qform(header: Nifti1Header) -> NDArray[np.float64]:
    """The qform of the standard: a rotation by the quaternion, scaled by pixdim; NaN where there is none."""
    b, c, d = (float(header[f"quatern_{letter}"]) for letter in "bcd")
    a_squared = 1 - (b * b + c * c + d * d)
    if not a_squared > -1e-5:  # also NaN; float32 rounding may leave it a little below 0
        return np.full((4, 4), np.nan)
    a = math.sqrt(max(a_squared, 0.0))
    affine = np.eye(4)
    affine[:3, :3] = quat2mat([a, b, c, d])
    mirrored = -1.0 if float(header["pixdim"][0]) == -1.0 else 1.0
    affine[:3, :3] *= np.asarray(header["pixdim"][1:4], np.float64) * (1.0, 1.0, mirrored)
    affine[:3, 3] = [float(header[f"qoffset_{letter}"]) for letter in "xyz"]
    return affine


def _extensions(block: bytes, raw: RawHeader) -> tuple[list[bytes], list[str]]:
    """The comments among the header extensions."""
    comments: list[bytes] = []
    position = 0
    while raw.has_extensions and position + 8 <= len(block):
        size, code = struct.unpack_from(f"{raw.byte_order}ii", block, position)
        if size < 8 or position + size > len(block):
            return comments, [
                f"A header extension declares {size:,} bytes where {len(block) - position:,} are left; it "
                "was ignored."
            ]
        if code == COMMENT_CODE:
            comments.append(block[position + 8 : position + size])
        position += size
    return comments, []


def _carried(header: Nifti1Header, shape: tuple[int, int, int]) -> Nifti1Header:
    """What a result on this grid writes back: codes, units, scaling; no free text, no extension."""
    carried = type(header)()
    for field in CARRIED_FIELDS:
        carried[field] = header[field]
    carried["dim"] = [3, *shape, 1, 1, 1, 1]
    return carried
