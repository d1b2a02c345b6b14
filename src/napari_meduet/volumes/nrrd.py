"""NRRD (.nrrd, and .nhdr with its voxels in a file beside it)."""

import os
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_meduet.errors import InputError
from napari_meduet.volumes.checked_stream import Compression
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

MAX_HEADER_BYTES = 2**20

ENCODINGS: dict[str, Compression] = {"raw": "none", "gzip": "gzip", "gz": "gzip"}

TYPES = {
    "signed char": "i1", "int8": "i1", "int8_t": "i1",
    "uchar": "u1", "unsigned char": "u1", "uint8": "u1", "uint8_t": "u1",
    "short": "i2", "short int": "i2", "signed short": "i2", "signed short int": "i2",
    "int16": "i2", "int16_t": "i2",
    "ushort": "u2", "unsigned short": "u2", "unsigned short int": "u2", "uint16": "u2", "uint16_t": "u2",
    "int": "i4", "signed int": "i4", "int32": "i4", "int32_t": "i4",
    "uint": "u4", "unsigned int": "u4", "uint32": "u4", "uint32_t": "u4",
    "longlong": "i8", "long long": "i8", "long long int": "i8", "signed long long": "i8",
    "signed long long int": "i8", "int64": "i8", "int64_t": "i8",
    "ulonglong": "u8", "unsigned long long": "u8", "unsigned long long int": "u8",
    "uint64": "u8", "uint64_t": "u8",
    "float": "f4", "double": "f8",
}  # fmt: skip
SPACES = {
    "right-anterior-superior": np.eye(3), "ras": np.eye(3),
    "left-anterior-superior": np.diag([-1.0, 1.0, 1.0]), "las": np.diag([-1.0, 1.0, 1.0]),
    "left-posterior-superior": LPS_TO_RAS, "lps": LPS_TO_RAS,
}  # fmt: skip


def read_nrrd(path: Path, file: FileIO, volume_index: int | None, budget_bytes: int) -> Scan:
    """One volume of an NRRD file."""
    head = file.read(MAX_HEADER_BYTES)
    fields, num_bytes = _fields(head, shown_name(path))
    description = _described(fields, shown_name(path), num_bytes)
    return read_described(description, head[:num_bytes], path, file, volume_index, budget_bytes)


def _fields(head: bytes, name: str) -> tuple[dict[str, str], int]:
    """Fields of an NRRD header in lower case, and where it ends: after the first blank line."""
    marks = [(head.find(mark), len(mark)) for mark in (b"\n\n", b"\r\n\r\n")]
    ends = [start + length for start, length in marks if start >= 0]
    if not ends and len(head) == MAX_HEADER_BYTES:
        raise InputError(f"{name}: its header does not end within {MAX_HEADER_BYTES // 1024} KiB.")
    num_bytes = min(ends, default=len(head))  # a detached header may do without the blank line
    fields = {}
    for line in os.fsdecode(head[:num_bytes]).splitlines()[1:]:
        key, separator, value = line.partition(": ")
        if separator and not line.startswith("#") and ":=" not in key:
            fields[key.strip().lower()] = value.strip()
    return fields, num_bytes


def _described(fields: dict[str, str], name: str, num_bytes: int) -> Description:
    for field in ("dimension", "type", "encoding", "sizes"):
        if field not in fields:
            raise InputError(f"{name}: the NRRD field {field!r} is missing.")
    sizes = integers(name, "sizes", fields["sizes"])
    if [len(sizes)] != integers(name, "dimension", fields["dimension"]):
        raise InputError(f"{name}: dimension is {fields['dimension']} but sizes has {len(sizes)} numbers.")
    shape, num_volumes = split_sizes(name, "sizes", sizes)
    encoding = fields["encoding"].lower()
    if encoding not in ENCODINGS:
        raise InputError(f"{name}: encoding {encoding!r} is not read; save it with raw or gzip encoding.")
    data_file = fields.get("data file", fields.get("datafile"))
    if data_file is not None and (data_file.upper().startswith("LIST") or "%" in data_file):
        raise InputError(f"{name}: data file lists several files; save the scan as one file.")
    for field in ("line skip", "byte skip"):
        if integers(name, field, fields.get(field, "0")) != [0]:
            raise InputError(f"{name}: {field} is not supported; save the scan again without it.")
    axes, origin, warnings = _place(fields, name, len(sizes))
    return Description(
        shape=shape,
        num_volumes=num_volumes,
        dtype=_dtype(fields, name),
        axes=axes,
        origin=origin,
        compression=ENCODINGS[encoding],
        data_file=data_file,
        data_start=num_bytes if data_file is None else 0,
        warnings=warnings,
        sizes_field="sizes",
        place_field="space directions" if "space directions" in fields else "spacings",
    )


def _dtype(fields: dict[str, str], name: str) -> np.dtype:
    if fields["type"].lower() not in TYPES:
        raise InputError(f"{name}: type {fields['type']!r} is no type of number that a scan can hold.")
    dtype = np.dtype(TYPES[fields["type"].lower()])
    if dtype.itemsize == 1:
        return dtype
    endian = fields.get("endian", "missing").lower()
    if endian not in ("little", "big"):
        raise InputError(f"{name}: endian is {endian}; the voxels can be read as little or big only.")
    return dtype.newbyteorder("<" if endian == "little" else ">")


def _place(
    fields: dict[str, str], name: str, num_axes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Axes and origin in RAS mm, and what is doubtful."""
    if "space directions" not in fields:
        if "spacings" not in fields:
            raise InputError(f"{name}: space directions and spacings are missing; the voxel size is unknown.")
        spacing = numbers(name, "spacings", fields["spacings"])
        if len(spacing) != num_axes:
            raise InputError(f"{name}: spacings has {len(spacing)} numbers for {num_axes} axes.")
        return LPS_TO_RAS @ np.diag(spacing[:3]), np.zeros(3), [unknown_place("space directions")]

    vectors = _vectors(name, "space directions", fields["space directions"])
    spatial = [vector for vector in vectors[:3] if vector is not None]
    if len(vectors) != num_axes or len(spatial) != 3 or any(vector is not None for vector in vectors[3:]):
        raise InputError(
            f"{name}: space directions must hold one vector for each of the first three axes and none for "
            "the others; colours and vectors per voxel are not read. It is "
            f"{fields['space directions'][:80]}."
        )
    warnings = []
    space = fields.get("space", "missing").lower()
    if space not in SPACES:
        warnings.append(
            f"space is {space}; left-posterior-superior is assumed. LEFT AND RIGHT MAY BE SWAPPED."
        )
    if "space origin" not in fields:
        warnings.append("space origin is missing; the first voxel is put at 0, 0, 0.")
    origin = _vectors(name, "space origin", fields.get("space origin", "(0,0,0)"))
    if len(origin) != 1 or origin[0] is None:
        raise InputError(f"{name}: space origin is not one position: {fields['space origin'][:80]}.")
    to_ras = SPACES.get(space, LPS_TO_RAS) * _mm_per_unit(fields, warnings)
    return to_ras @ np.array(spatial).T, to_ras @ np.array(origin[0]), warnings


def _mm_per_unit(fields: dict[str, str], warnings: list[str]) -> float:
    """Millimetres in one unit of the header; by custom a header that names none means millimetres."""
    units = {word.strip('"').lower() for word in fields.get("space units", '"mm"').split()}
    known = {"mm": 1.0, "millimeter": 1.0, "m": 1000.0, "um": 0.001, "µm": 0.001, "": 1.0}
    if len(units) == 1 and units <= known.keys():
        return known[units.pop()]
    warnings.append(f"space units is {fields['space units']}; millimetres are assumed.")
    return 1.0


def _vectors(name: str, field: str, text: str) -> list[tuple[float, float, float] | None]:
    """NRRD vectors as in `(1,0,0) (0,1,0) none`."""
    vectors: list[tuple[float, float, float] | None] = []
    for word in text.replace(") (", ")\0(").replace(" none", "\0none").replace("none ", "none\0").split("\0"):
        if word.strip().lower() == "none":
            vectors.append(None)
            continue
        vector = numbers(name, field, word.strip().strip("()").replace(",", " "))
        if len(vector) != 3:
            raise InputError(f"{name}: {field} holds {word.strip()!r} where three numbers were expected.")
        vectors.append((vector[0], vector[1], vector[2]))
    return vectors
