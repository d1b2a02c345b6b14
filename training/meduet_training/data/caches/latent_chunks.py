"""The latent of one scan on disk: a safetensors file of chunks, each with its own checksum.

A crop reads only the chunks that it touches, and each chunk is checked before its numbers are used.
`latent_entry.py` gives the numbers their meaning. The safetensors library writes the files and can open them.
This file reads them without the library, because the library maps files into memory: a failing disk or a
file that shrinks would then kill the process (docs/decisions/0008-latent-cache.md).
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

from napari_meduet.core.sliding_windows import Position
from napari_meduet.volumes.files import write_atomically

CHUNK_SIDE = 8  # latent voxels along each axis of a chunk (docs/decisions/0008-latent-cache.md)
LARGEST_HEADER_BYTES = 2**20
ABOUT = "about"  # key of the file's metadata; its value is record, shape and digest as JSON


class CorruptedFile(Exception):
    """A file differs from what was written. The message says how."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ChunkFile:
    """The header of a file; the chunks stay on disk until `read` is called.

    Attributes:
        path: the file.
        record: JSON text that was saved beside the latent.
        rows: numbers per latent voxel.
        shape: latent voxels along each axis. Chunks at the far ends are padded with zeros.
        offset: byte at which the first chunk begins.
        checksums: (I, J, K), CRC-32C of each chunk.
        sha256: digest of record, shape and checksums, so of everything in the file.
    """

    path: Path
    record: str
    rows: int
    shape: Position
    offset: int
    checksums: np.ndarray
    sha256: str

    def read(self, corner: Position, size: Position) -> Float[Tensor, "R x y z"]:
        """Return the crop of this size whose first voxel is `corner`, in bfloat16.

        Raises:
            CorruptedFile: the file is truncated, or the checksum of a chunk is wrong.
            OSError: the file is missing, or the disk fails.
        """
        first = [start // CHUNK_SIDE for start in corner]
        stop = [-(-(start + width) // CHUNK_SIDE) for start, width in zip(corner, size, strict=True)]
        spans = [slice(low, high) for low, high in zip(first, stop, strict=True)]
        chunks = self._checked_chunks(spans)
        values = torch.from_numpy(chunks).view(torch.bfloat16)
        whole = rearrange(values, "i j k r x y z -> r (i x) (j y) (k z)")
        inside = [
            slice(start - CHUNK_SIDE * low, start - CHUNK_SIDE * low + width)
            for start, low, width in zip(corner, first, size, strict=True)
        ]
        return whole[(slice(None), *inside)]

    def read_all(self) -> Float[Tensor, "R X Y Z"]:
        """Return the whole latent after comparing every checksum. Raises the errors of `read`."""
        return self.read((0, 0, 0), self.shape)

    def _checked_chunks(self, spans: list[slice]) -> np.ndarray:
        expected = self.checksums[tuple(spans)]
        chunks = np.empty((*expected.shape, self.rows, CHUNK_SIDE, CHUNK_SIDE, CHUNK_SIDE), np.int16)
        chunk_bytes = chunks[0, 0, 0].nbytes
        with open(self.path, "rb", buffering=0) as file:
            for i, j in np.ndindex(expected.shape[:2]):  # chunks along the last axis are contiguous
                place = (spans[0].start + i, spans[1].start + j, spans[2].start)
                start = self.offset + chunk_bytes * int(np.ravel_multi_index(place, self.checksums.shape))
                _read_into(file.fileno(), chunks[i, j].data.cast("B"), start)
        for index in np.ndindex(expected.shape):
            if google_crc32c.value(chunks[index].tobytes()) != expected[index]:
                raise CorruptedFile("a checksum is wrong")
        return chunks


def save_chunks(path: Path, latent: Float[Tensor, "R X Y Z"], record: str) -> None:
    """Write a latent, rounded to bfloat16, completely or not at all.

    Args:
        record: JSON text to save beside the latent.

    Raises:
        InputError: the file cannot be written.
    """
    shape = list(latent.shape[1:])
    missing = [amount for side in reversed(shape) for amount in (0, -side % CHUNK_SIDE)]
    padded = F.pad(latent, missing).to(torch.bfloat16)
    chunks = rearrange(
        padded, "r (i x) (j y) (k z) -> i j k r x y z", x=CHUNK_SIDE, y=CHUNK_SIDE, z=CHUNK_SIDE
    ).contiguous()
    numbers = chunks.view(torch.int16).numpy()
    checksums = np.empty(numbers.shape[:3], np.uint32)
    for index in np.ndindex(checksums.shape):
        checksums[index] = google_crc32c.value(numbers[index].tobytes())
    about = {"record": record, "shape": shape, "sha256": _digest(record, shape, checksums)}
    tensors = {"latent": chunks, "checksums": torch.from_numpy(checksums)}
    with write_atomically(path, overwrite=True) as temporary:
        # A single key, because the library writes several keys in random order.
        temporary.write_bytes(save(tensors, {ABOUT: json.dumps(about)}))


def open_chunks(path: Path) -> ChunkFile:
    """Return the header of a file.

    Raises:
        CorruptedFile: the file is truncated or changed, or holds something else.
        OSError: the file is missing, or the disk fails.
    """
    with open(path, "rb", buffering=0) as file:
        header, data_start = _header(file.fileno())
        about, shape, rows, starts, num_bytes = _parsed(header)
        if os.fstat(file.fileno()).st_size != data_start + num_bytes:
            raise CorruptedFile("it is truncated")
        checksums = np.empty([-(-side // CHUNK_SIDE) for side in shape], np.uint32)
        _read_into(file.fileno(), checksums.data.cast("B"), data_start + starts["checksums"])
    if about["sha256"] != _digest(about["record"], list(shape), checksums):
        raise CorruptedFile("its header was changed")
    return ChunkFile(
        path=path,
        record=about["record"],
        rows=rows,
        shape=shape,
        offset=data_start + starts["latent"],
        checksums=checksums,
        sha256=about["sha256"],
    )


def _header(descriptor: int) -> tuple[Any, int]:
    """Return the header of a safetensors file (length in 8 bytes, then JSON) and the start of the tensors."""
    prefix = bytearray(8)
    _read_into(descriptor, memoryview(prefix), 0)
    length = int.from_bytes(prefix, "little")
    if length > LARGEST_HEADER_BYTES:
        raise CorruptedFile("it is no entry of a latent cache")
    text = bytearray(length)
    _read_into(descriptor, memoryview(text), 8)
    try:
        return json.loads(text), 8 + length
    except ValueError as error:
        raise CorruptedFile("it is no entry of a latent cache") from error


def _parsed(header: Any) -> tuple[dict[str, str], Position, int, dict[str, int], int]:
    """Return record and digest, shape, rows, start of each tensor and total bytes, from a header."""
    try:
        about = json.loads(header["__metadata__"][ABOUT])
        x, y, z = (int(side) for side in about["shape"])
        texts = {name: str(about[name]) for name in ("record", "sha256")}
        rows = int(header["latent"]["shape"][3])
        grid = [-(-side // CHUNK_SIDE) for side in (x, y, z)]
        starts, num_bytes = {}, 0
        for name, dtype, width, sides in (
            ("latent", "BF16", 2, [*grid, rows, CHUNK_SIDE, CHUNK_SIDE, CHUNK_SIDE]),
            ("checksums", "U32", 4, grid),
        ):
            tensor, size = header[name], width * math.prod(sides)
            starts[name], end = tensor["data_offsets"]
            if (tensor["dtype"], tensor["shape"]) != (dtype, sides) or end != starts[name] + size or size < 1:
                raise ValueError(name)
            num_bytes += size
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CorruptedFile("it is no entry of a latent cache") from error
    return texts, (x, y, z), rows, starts, num_bytes


def _digest(record: str, shape: list[int], checksums: np.ndarray) -> str:
    digest = hashlib.sha256(json.dumps([record, shape]).encode())
    digest.update(checksums.tobytes())
    return digest.hexdigest()


def _read_into(descriptor: int, buffer: memoryview, start: int) -> None:
    """Fill the buffer from the file, starting at byte `start`."""
    done = 0
    while done < len(buffer):
        count = os.preadv(descriptor, [buffer[done:]], start + done)
        if count == 0:
            raise CorruptedFile("it is truncated")
        done += count
