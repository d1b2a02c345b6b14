"""Bytes of a file, inflated if they are compressed, with nothing about them left unchecked.

Readers trust too much: with one, 253 of 300 flipped bits in a .nii.gz came back as wrong voxels; with
another, the missing half of a truncated file came back as zeros. A `CheckedStream` gives exactly what is
asked for or raises, and `finish` reads on to the end, where the checksum and the length are.
"""

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from types import TracebackType
from typing import Literal, Self

from isal import isal_zlib

from napari_meduet.errors import InputError

Compression = Literal["none", "gzip", "zlib"]

CHUNK_BYTES = 2**18  # keeps what is read, hashed and inflated within the processor's cache
MAX_TRAILING_BYTES = 2**20
MAX_DEFLATE_RATIO = 1032  # what DEFLATE can reach (RFC 1951: 258 bytes from two bits)
GZIP_MAGIC = b"\x1f\x8b"


class CheckedStream:
    """The bytes of a file from `start` on; all of the file is hashed, on a second thread."""

    def __init__(self, file: FileIO, name: str, compression: Compression, start: int = 0) -> None:
        self.name = name
        self.compression = compression
        self._file = file
        self._size = file.seek(0, 2) - start
        file.seek(0)
        self._sha256 = hashlib.sha256(file.read(start))
        self._hasher = ThreadPoolExecutor(1)
        self._hashing: deque[Future[None]] = deque()
        self._inflater = self._new_inflater()
        self._pending = memoryview(b"")  # read but not yet inflated, or plain bytes not yet asked for
        self._left_over = 0  # bytes after the last compressed member, zero padding aside

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hasher.shutdown(wait=True, cancel_futures=True)

    def most_bytes(self) -> int:
        """No more bytes than this can come out: tells a lying header before anything is allocated."""
        return self._size if self.compression == "none" else self._size * MAX_DEFLATE_RATIO

    def read_into(self, buffer: memoryview, what: str) -> None:
        """Fill the buffer, or raise an InputError that says how much of `what` is missing."""
        filled = 0
        while filled < len(buffer):
            piece = self._some(len(buffer) - filled)
            if not piece:
                raise InputError(
                    f"{self.name}: is cut short: {len(buffer) - filled:,} of {len(buffer):,} bytes of "
                    f"{what} are missing; copy or export it again."
                )
            buffer[filled : filled + len(piece)] = piece
            filled += len(piece)

    def read(self, size: int, what: str) -> bytes:
        """Exactly `size` bytes."""
        buffer = bytearray(size)
        self.read_into(memoryview(buffer), what)
        return bytes(buffer)

    def skip(self, size: int, what: str) -> None:
        """Pass over `size` bytes."""
        scratch = memoryview(bytearray(min(size, CHUNK_BYTES)))
        while size > 0:
            step = min(size, CHUNK_BYTES)
            self.read_into(scratch[:step], what)
            size -= step

    def finish(self) -> tuple[int, str]:
        """Read to the end; how many bytes were left over after the data, and the file's SHA-256."""
        trailing = 0
        while piece := self._some(CHUNK_BYTES):
            trailing += len(piece)
            self._refuse_if_long(trailing)
        while self._hashing:
            self._hashing.popleft().result()
        return trailing + self._left_over, self._sha256.hexdigest()

    def _some(self, limit: int) -> bytes | memoryview:
        """Between one and `limit` bytes, or none at the end."""
        if self.compression == "none":
            piece = self._pending if self._pending else memoryview(self._chunk())
            self._pending = piece[limit:]
            return piece[:limit]
        while True:
            if self._inflater.eof and not self._next_member():
                return b""
            if not self._pending:
                self._pending = memoryview(self._chunk())
            last = not self._pending
            try:
                piece = self._inflater.decompress(self._pending, min(limit, 4 * CHUNK_BYTES))
            except isal_zlib.IsalError as error:  # pyright: ignore[reportGeneralTypeIssues] (isal's stub)
                raise InputError(
                    f"{self.name}: its compressed data are damaged ({error}); copy or export it again."
                ) from error
            self._pending = memoryview(
                self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
            )
            if piece:
                return piece
            if last and not self._inflater.eof:
                raise InputError(
                    f"{self.name}: is cut short: its compressed data end before their checksum; copy or "
                    "export it again."
                )

    def _next_member(self) -> bool:
        """Start on another gzip member if one follows; zero padding and other leftovers end the stream."""
        if len(self._pending) < 2:
            self._pending = memoryview(bytes(self._pending) + self._chunk())
        if self.compression == "gzip" and self._pending[:2] == GZIP_MAGIC:
            self._inflater = self._new_inflater()
            return True
        chunk = bytes(self._pending)
        while chunk:
            self._left_over += len(chunk) if any(chunk) else 0
            self._refuse_if_long(self._left_over)
            chunk = self._chunk()
        self._pending = memoryview(b"")
        return False

    def _refuse_if_long(self, trailing: int) -> None:
        if trailing > MAX_TRAILING_BYTES:
            raise InputError(
                f"{self.name}: goes on for more than 1 MiB after the voxels its header declares; the header "
                "or the file is damaged."
            )

    def _new_inflater(self) -> "isal_zlib.Decompress":
        return isal_zlib.decompressobj(wbits=15 if self.compression == "zlib" else 31)

    def _chunk(self) -> bytes:
        """The next bytes of the file as they are, on their way to the hash."""
        try:
            chunk = self._file.read(CHUNK_BYTES)
        except OSError as error:
            raise InputError(f"{self.name}: could not be read to its end ({error.strerror}).") from error
        if chunk:
            if len(self._hashing) >= 8:  # bounds what waits for the slower thread
                self._hashing.popleft().result()
            self._hashing.append(self._hasher.submit(self._sha256.update, chunk))
        return chunk
