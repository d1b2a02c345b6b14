"""MetaImage (.mha, and .mhd with its voxels in a file beside it)."""

import os
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_meduet.errors import InputError
from napari_meduet.volumes.safe_open import shown_name
from napari_meduet.volumes.scan import Scan
from napari_meduet.volumes.text_headers import (
    LPS_TO_RAS,
    Description,
    integers,
    numbers,
    read_described,
    split_sizes,
    unknown_place,
)
from napari_meduet.volumes.volume import Modality

MAX_HEADER_BYTES = 2**16

TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip

MODALITIES: dict[str, Modality] = {"MET_MOD_CT": "CT", "MET_MOD_MR": "MR"}


def read_metaimage(path: Path, file: FileIO, volume_index: int | None, budget_bytes: int) -> Scan:
    """One volume of a MetaImage file."""
    head = file.read(MAX_HEADER_BYTES)
    fields, num_bytes = _fields(head, shown_name(path))
    description = _described(fields, shown_name(path), num_bytes)
    return read_described(description, head[:num_bytes], path, file, volume_index, budget_bytes)


def _fields(head: bytes, name: str) -> tuple[dict[str, str], int]:
    """Fields of a MetaImage header, and where it ends: after the line of ElementDataFile."""
    fields: dict[str, str] = {}
    position = 0
    while (end := head.find(b"\n", position)) >= 0:
        key, separator, value = os.fsdecode(head[position:end]).partition("=")
        if not separator:
            break
        fields[key.strip()] = value.strip()
        position = end + 1
        if key.strip() == "ElementDataFile":
            return fields, position
    raise InputError(f"{name}: is not a MetaImage file, or ElementDataFile is missing from its header.")


def _described(fields: dict[str, str], name: str, num_bytes: int) -> Description:
    for field in ("NDims", "DimSize", "ElementType"):
        if field not in fields:
            raise InputError(f"{name}: the field {field} is missing.")
    sizes = integers(name, "DimSize", fields["DimSize"])
    if [len(sizes)] != integers(name, "NDims", fields["NDims"]):
        raise InputError(f"{name}: NDims is {fields['NDims']} but DimSize has {len(sizes)} numbers.")
    shape, num_volumes = split_sizes(name, "DimSize", sizes)
    if fields["ElementType"] not in TYPES:
        raise InputError(
            f"{name}: ElementType {fields['ElementType']} is no type of number that a scan can hold."
        )
    if integers(name, "ElementNumberOfChannels", fields.get("ElementNumberOfChannels", "1")) != [1]:
        raise InputError(
            f"{name}: ElementNumberOfChannels is {fields['ElementNumberOfChannels']}; a scan holds one real "
            "number per voxel, not colours or vectors."
        )
    if fields.get("BinaryData", "True").lower() != "true":
        raise InputError(f"{name}: BinaryData is not True; save the scan in binary form.")
    data_file = fields["ElementDataFile"]
    if data_file.upper().startswith("LIST") or "%" in data_file:
        raise InputError(f"{name}: ElementDataFile lists several files; save the scan as one file.")
    local = data_file.upper() == "LOCAL"
    header_size = integers(name, "HeaderSize", fields.get("HeaderSize", "0"))
    if len(header_size) != 1 or not 0 <= header_size[0] <= MAX_HEADER_BYTES or (local and header_size[0] > 0):
        raise InputError(f"{name}: HeaderSize is {fields['HeaderSize']}; save the scan with HeaderSize 0.")
    big_endian = _first_of(fields, ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")) or "False"
    axes, origin, warnings = _place(fields, name, len(sizes))
    return Description(
        shape=shape,
        num_volumes=num_volumes,
        dtype=np.dtype(TYPES[fields["ElementType"]]).newbyteorder(
            ">" if big_endian.lower() == "true" else "<"
        ),
        axes=axes,
        origin=origin,
        compression="zlib" if fields.get("CompressedData", "False").lower() == "true" else "none",
        data_file=None if local else data_file,
        data_start=num_bytes if local else header_size[0],
        warnings=warnings,
        sizes_field="DimSize",
        place_field="ElementSpacing and TransformMatrix",
        modality=MODALITIES.get(fields.get("Modality", "")),
    )


def _place(
    fields: dict[str, str], name: str, num_axes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Axes and origin in RAS mm, and what is doubtful."""
    step = _first_of(fields, ("ElementSpacing", "ElementSize"))
    if step is None:
        raise InputError(f"{name}: ElementSpacing is missing; the voxel size is unknown.")
    matrix = _first_of(fields, ("TransformMatrix", "Rotation", "Orientation"))
    position = _first_of(fields, ("Offset", "Position", "Origin"))
    warnings = []
    if matrix is None:
        warnings.append(unknown_place("TransformMatrix"))
    if position is None:
        warnings.append("Offset is missing; the first voxel is put at 0, 0, 0.")
    spacing = numbers(name, "ElementSpacing", step)
    directions = numbers(name, "TransformMatrix", matrix) if matrix else list(np.eye(num_axes).ravel())
    origin = numbers(name, "Offset", position) if position else [0.0] * num_axes
    if (len(spacing), len(directions), len(origin)) != (num_axes, num_axes**2, num_axes):
        raise InputError(
            f"{name}: ElementSpacing, TransformMatrix and Offset must hold {num_axes}, {num_axes**2} and "
            f"{num_axes} numbers; they hold {len(spacing)}, {len(directions)} and {len(origin)}."
        )
    if min(spacing[:3]) < 0:
        raise InputError(f"{name}: ElementSpacing is negative ({step}).")
    columns = np.array(directions).reshape(num_axes, num_axes).T[:3, :3]  # each row of the field is one axis
    if not np.allclose(np.linalg.norm(columns, axis=0), 1, atol=1e-3):
        raise InputError(f"{name}: TransformMatrix holds directions that are not of length 1 ({matrix}).")
    return LPS_TO_RAS @ columns * spacing[:3], LPS_TO_RAS @ np.array(origin[:3]), warnings


def _first_of(fields: dict[str, str], names: tuple[str, ...]) -> str | None:
    return next((fields[name] for name in names if name in fields), None)
