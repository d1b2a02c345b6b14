"""Voxels behind a text header, as in NRRD and MetaImage: what it says is checked, then they are read.

How each format words its header is nrrd.py's and metaimage.py's business.
"""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from napari_meduet.errors import InputError
from napari_meduet.volumes import checks
from napari_meduet.volumes.checked_stream import CheckedStream, Compression
from napari_meduet.volumes.safe_open import open_regular, shown_name
from napari_meduet.volumes.scan import Scan
from napari_meduet.volumes.volume import Modality

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a text header says of its voxels."""

    shape: tuple[int, int, int]
    num_volumes: int
    dtype: np.dtype
    axes: NDArray[np.float64]  # (3, 3), a column per voxel axis, in RAS mm
    origin: NDArray[np.float64]  # (3,) RAS mm
    compression: Compression
    data_file: str | None  # beside the header; None: in the header's own file
    data_start: int  # where the voxels begin in that file
    warnings: list[str]
    sizes_field: str  # the field of the shape, for messages
    place_field: str  # the field of axes and origin
    modality: Modality | None = None


def read_described(
    description: Description,
    header: bytes,
    path: Path,
    file: FileIO,
    volume_index: int | None,
    budget_bytes: int,
) -> Scan:
    """One volume of the file that the description is about.

    Args:
        header: the header's bytes, hashed together with a data file beside it.
    """
    name = shown_name(path)
    shape, num_volumes = description.shape, description.num_volumes
    index = checks.choose_volume(name, description.sizes_field, num_volumes, volume_index)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = description.axes, description.origin
    warnings = description.warnings + checks.check_affine(name, description.place_field, affine, shape)
    checks.check_memory(name, shape, description.dtype.itemsize, budget_bytes)

    with _data(path, file, description) as stream:
        volume_bytes = math.prod(shape) * description.dtype.itemsize
        if num_volumes * volume_bytes > stream.most_bytes():
            raise InputError(
                f"{stream.name}: {description.sizes_field} and the voxel type declare "
                f"{num_volumes * volume_bytes:,} bytes, more than the file can hold; it is cut short or its "
                "header is damaged."
            )
        voxels = checks.allocate(name, shape, description.dtype)
        stream.skip(index * volume_bytes, "voxels")
        stream.read_into(voxels.T.data.cast("B"), "voxels")
        stream.skip((num_volumes - 1 - index) * volume_bytes, "voxels")
        trailing, sha256 = stream.finish()
    warnings += checks.leftovers(trailing)
    if description.data_file is not None:
        sha256 = hashlib.sha256(header + bytes.fromhex(sha256)).hexdigest()
    return Scan(
        voxels=checks.in_native_order(voxels),
        affine=affine,
        slope=1.0,
        intercept=0.0,
        warnings=warnings,
        sha256=sha256,
        modality=description.modality,
    )


@contextmanager
def _data(path: Path, file: FileIO, description: Description) -> Iterator[CheckedStream]:
    """The bytes of the voxels, from this file or the one beside it."""
    if description.data_file is None:
        with CheckedStream(
            file, shown_name(path), description.compression, start=description.data_start
        ) as stream:
            yield stream
        return
    beside = PurePath(description.data_file)
    if beside.name != description.data_file or "\\" in description.data_file:
        raise InputError(
            f"{shown_name(path)}: its data file {shown_name(beside)} is not in the same folder; other "
            "places are not read."
        )
    if not path.with_name(beside.name).is_file():
        raise InputError(f"{shown_name(path)}: its data file {shown_name(beside)} is not beside it.")
    with (
        open_regular(path.with_name(beside.name)) as data,
        CheckedStream(
            data, shown_name(beside), description.compression, start=description.data_start
        ) as stream,
    ):
        yield stream


def split_sizes(name: str, field: str, sizes: list[int]) -> tuple[tuple[int, int, int], int]:
    """The shape of one volume and the number of volumes, from the sizes of all axes."""
    if min(sizes, default=0) < 1:
        raise InputError(f"{name}: {field} declares an axis without voxels ({sizes}).")
    checks.check_shape(name, field, tuple(sizes[:3] if len(sizes) == 4 else sizes))
    x, y, z = sizes[:3]
    return (x, y, z), sizes[3] if len(sizes) == 4 else 1


def unknown_place(field: str) -> str:
    """The warning about a header that gives a spacing but no directions."""
    return (
        f"The file does not say how the scan lies in the patient ({field} is missing); right to left, front "
        "to back and feet to head are assumed. LEFT AND RIGHT MAY BE SWAPPED."
    )


def integers(name: str, field: str, text: str) -> list[int]:
    """The whole numbers in a field."""
    try:
        return [int(word) for word in text.split()]
    except ValueError:
        raise InputError(f"{name}: {field} should hold whole numbers; it is {text[:60]!r}.") from None


def numbers(name: str, field: str, text: str) -> list[float]:
    """The numbers in a field."""
    try:
        return [float(word) for word in text.split()]
    except ValueError:
        raise InputError(f"{name}: {field} should hold numbers; it is {text[:60]!r}.") from None
