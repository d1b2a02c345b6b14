"""The latent of one scan on disk: a safetensors file of small cubes, each with its checksum.

A crop reads the cubes that it touches and no others, and each is checked before a number of it is used. What
the numbers mean is `latent_entry.py`'s business. Files are written by the safetensors library and open in
it; reading is done here, because the library maps files into memory, where a failing disk or a file that
shrinks kills the process instead of raising an error (docs/decisions/0008-latent-cache.md).
"""

import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from napari_meduet.volumes.files import write_atomically

EDGE = 8  # latent voxels of a cube along each axis (docs/decisions/0008-latent-cache.md)
LARGEST_HEADER_BYTES = 2**20
ABOUT = "about"  # of the file's metadata: words, shape and digest, as JSON

Place = tuple[int, int, int]


class CorruptedFile(Exception):
    """A file is not what was written; the message says how it differs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ChunkFile:
    """What is known of a file without reading its cubes.

    Attributes:
        words: what was saved beside the latent, as JSON.
        rows: numbers per latent voxel.
        shape: of the latent, in voxels; the outermost cubes are filled up with zeros.
        offset: byte at which the first cube begins.
        checksums: (I, J, K), CRC-32C of each cube.
        sha256: of words, shape and checksums, so of everything in the file.
    """

    path: Path
    words: str
    rows: int
    shape: Place
    offset: int
    checksums: np.ndarray
    sha256: str

    def read(self, corner: Place, size: Place) -> Float[Tensor, "R x y z"]:
        """The crop of that size whose first voxel is `corner`, in bfloat16.

        Raises:
            Damaged: the file is cut off, or a cube's checksum is wrong.
            OSError: the file is gone, or the disk fails.
        """
        first = [start // EDGE for start in corner]
        stop = [-(-(start + width) // EDGE) for start, width in zip(corner, size, strict=True)]
        spans = [slice(low, high) for low, high in zip(first, stop, strict=True)]
        cubes = self._checked_cubes(spans)
        values = torch.from_numpy(cubes).view(torch.bfloat16)
        whole = rearrange(values, "i j k r x y z -> r (i x) (j y) (k z)")
        inside = [
            slice(start - EDGE * low, start - EDGE * low + width)
            for start, low, width in zip(corner, first, size, strict=True)
        ]
        return whole[(slice(None), *inside)]

    def read_all(self) -> Float[Tensor, "R X Y Z"]:
        """The whole latent, every checksum compared; raises as `read` does."""
        return self.read((0, 0, 0), self.shape)

    def _checked_cubes(self, spans: list[slice]) -> np.ndarray:
        expected = self.checksums[tuple(spans)]
        cubes = np.empty((*expected.shape, self.rows, EDGE, EDGE, EDGE), np.int16)
        cube_bytes = cubes[0, 0, 0].nbytes
        with open(self.path, "rb", buffering=0) as file:
            for i, j in np.ndindex(expected.shape[:2]):  # cubes along the last axis lie one after another
                place = (spans[0].start + i, spans[1].start + j, spans[2].start)
                start = self.offset + cube_bytes * int(np.ravel_multi_index(place, self.checksums.shape))
                _read_into(file.fileno(), cubes[i, j].data.cast("B"), start)
        for index in np.ndindex(expected.shape):
            if google_crc32c.value(cubes[index].tobytes()) != expected[index]:
                raise CorruptedFile("a checksum is wrong")
        return cubes


def save_chunks(path: Path, latent: Float[Tensor, "R X Y Z"], words: str) -> None:
    """Write a latent, rounded to bfloat16, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    shape = list(latent.shape[1:])
    missing = [amount for side in reversed(shape) for amount in (0, -side % EDGE)]
    padded = F.pad(latent, missing).to(torch.bfloat16)
    cubes = rearrange(padded, "r (i x) (j y) (k z) -> i j k r x y z", x=EDGE, y=EDGE, z=EDGE).contiguous()
    numbers = cubes.view(torch.int16).numpy()
    checksums = np.empty(numbers.shape[:3], np.uint32)
    for index in np.ndindex(checksums.shape):
        checksums[index] = google_crc32c.value(numbers[index].tobytes())
    about = {"words": words, "shape": shape, "sha256": _digest(words, shape, checksums)}
    tensors = {"latent": cubes, "checksums": torch.from_numpy(checksums)}
    with write_atomically(path, overwrite=True) as temporary:  # one key: the library shuffles several
        temporary.write_bytes(save(tensors, {ABOUT: json.dumps(about)}))


def open_chunks(path: Path) -> ChunkFile:
    """Read what a file says of itself.

    Raises:
        Damaged: it is cut off, changed, or no such file.
        OSError: it is gone, or the disk fails.
    """
    with open(path, "rb", buffering=0) as file:
        header, data_start = _header(file.fileno())
        about, shape, rows, starts, num_bytes = _layout(header)
        if os.fstat(file.fileno()).st_size != data_start + num_bytes:
            raise CorruptedFile("it is cut off")
        checksums = np.empty([-(-side // EDGE) for side in shape], np.uint32)
        _read_into(file.fileno(), checksums.data.cast("B"), data_start + starts["checksums"])
    if about["sha256"] != _digest(about["words"], list(shape), checksums):
        raise CorruptedFile("what it says of itself was changed")
    return ChunkFile(
        path=path,
        words=about["words"],
        rows=rows,
        shape=shape,
        offset=data_start + starts["latent"],
        checksums=checksums,
        sha256=about["sha256"],
    )


def _header(descriptor: int) -> tuple[Any, int]:
    """The header of a safetensors file (its length in 8 bytes, then JSON) and where the tensors begin."""
    prefix = bytearray(8)
    _read_into(descriptor, memoryview(prefix), 0)
    length = int.from_bytes(prefix, "little")
    if length > LARGEST_HEADER_BYTES:
        raise CorruptedFile("it is no cached latent")
    text = bytearray(length)
    _read_into(descriptor, memoryview(text), 8)
    try:
        return json.loads(text), 8 + length
    except ValueError as error:
        raise CorruptedFile("it is no cached latent") from error


def _layout(header: Any) -> tuple[dict[str, str], Place, int, dict[str, int], int]:
    """From a header: what is said of the latent, its shape and rows, where each tensor begins, all bytes."""
    try:
        about = json.loads(header["__metadata__"][ABOUT])
        x, y, z = (int(side) for side in about["shape"])
        words = {name: str(about[name]) for name in ("words", "sha256")}
        rows = int(header["latent"]["shape"][3])
        grid = [-(-side // EDGE) for side in (x, y, z)]
        starts, num_bytes = {}, 0
        for name, dtype, width, sides in (
            ("latent", "BF16", 2, [*grid, rows, EDGE, EDGE, EDGE]),
            ("checksums", "U32", 4, grid),
        ):
            told, size = header[name], width * math.prod(sides)
            starts[name], end = told["data_offsets"]
            if (told["dtype"], told["shape"]) != (dtype, sides) or end != starts[name] + size or size < 1:
                raise ValueError(name)
            num_bytes += size
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CorruptedFile("it is no cached latent") from error
    return words, (x, y, z), rows, starts, num_bytes


def _digest(words: str, shape: list[int], checksums: np.ndarray) -> str:
    digest = hashlib.sha256(json.dumps([words, shape]).encode())
    digest.update(checksums.tobytes())
    return digest.hexdigest()


def _read_into(descriptor: int, buffer: memoryview, start: int) -> None:
    """Fill the buffer from that byte on."""
    done = 0
    while done < len(buffer):
        count = os.preadv(descriptor, [buffer[done:]], start + done)
        if count == 0:
            raise CorruptedFile("it is cut off")
        done += count
