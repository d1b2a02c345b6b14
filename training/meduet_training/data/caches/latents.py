"""A latent cache: a folder with one entry for each scan of a cohort, and a description of all entries.

    cache.json     specification of the latents, channel maps of the flips, one row for each scan
    entries/       KEY.safetensors, complete or missing (latent_entry.py)
    failed/        KEY.json with the reason, for scans that could not be encoded
    summary.json   standardisation of the channels, once every scan was processed
    cache.lock     one byte for each entry, locked while the entry is made

Rows hold hashes and labels, but no path and no name. Entries of scans that left the manifest are not used.
`latent_encoding.py` fills a cache and `sources/latents.py` reads it.
"""

import errno
import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError

from meduet_training.data.augmentation.flips import Map
from meduet_training.data.caches.latent_chunks import CorruptedFile
from meduet_training.data.caches.latent_entry import ChannelStatistics, open_latent_entry, pooled_statistics
from meduet_training.data.caches.latent_spec import LatentSpec
from meduet_training.data.cohort.scan import Split
from meduet_training.runtime.folders import make_folder
from napari_meduet.errors import InputError
from napari_meduet.volumes.files import write_atomically
from napari_meduet.volumes.volume import Modality
from napari_meduet.volumes.writing import refusal

CACHE_FILE, SUMMARY_FILE, LOCK_FILE = "cache.json", "summary.json", "cache.lock"
ENTRIES, FAILED = "entries", "failed"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CacheRow(_Record):
    """One scan of the manifest.

    Attributes:
        key: the key of its entry (`latent_key`).
        domain, patient, modality, split: as in the manifest; the patient is a hash.
        may_train: the licence allows publishing a model that was trained on the scan.
    """

    key: str
    domain: str
    patient: str
    modality: Modality
    split: Split
    may_train: bool

    @property
    def trains(self) -> bool:
        """Whether a training uses the scan."""
        return self.split == "train" and self.may_train


class CacheDescription(_Record):
    """The content of `cache.json`.

    Attributes:
        spec: what the latents mean.
        channel_maps: for each flip and rotation, a linear map of the channels (`augmentation/flips.py`).
        rows: one row for each scan.
    """

    spec: LatentSpec
    channel_maps: dict[str, Map]
    rows: tuple[CacheRow, ...]

    @property
    def rows_sha256(self) -> str:
        """Digest of the rows."""
        text = json.dumps([row.model_dump() for row in self.rows])
        return hashlib.sha256(text.encode()).hexdigest()


class CacheSummary(_Record):
    """The content of `summary.json`.

    Attributes:
        rows_sha256: digest of the rows that the summary is about.
        num_entries: number of entries.
        failed: key and reason of each scan that could not be encoded.
        mean, std: of each channel over the body of all scans that train; empty if no scan trains.
    """

    rows_sha256: str
    num_entries: int
    failed: dict[str, str]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def entry_path(folder: Path, key: str) -> Path:
    """Return the path of an entry."""
    return folder / ENTRIES / f"{key}.safetensors"


def read_description(folder: Path) -> CacheDescription:
    """Return the description of a cache.

    Raises:
        InputError: the folder holds no cache, or another version wrote it.
    """
    return _read(folder, CACHE_FILE, CacheDescription)


def create_or_update(
    folder: Path,
    spec: LatentSpec,
    rows: tuple[CacheRow, ...],
    fit_channel_maps: Callable[[], dict[str, Map]],
) -> None:
    """Create the cache, or update the rows of an existing cache.

    Args:
        fit_channel_maps: called only for a new cache.

    Raises:
        InputError: the existing cache has another specification, or the folder cannot be written.
    """
    for name in (ENTRIES, FAILED):
        make_folder(folder / name)
    if (folder / CACHE_FILE).exists():
        found = read_description(folder)
        if difference := spec.difference(found.spec):
            raise InputError(
                f"{folder.name}: this cache was made {difference}; give another folder with -o, or the "
                "options that it was made with."
            )
        if found.rows == rows:
            return
        channel_maps = found.channel_maps
    else:
        channel_maps = fit_channel_maps()
    _write(folder / CACHE_FILE, CacheDescription(spec=spec, channel_maps=channel_maps, rows=rows))


def record_failure(folder: Path, key: str, reason: str | None) -> None:
    """Store why a scan has no entry. The reason None removes the record of an earlier failure."""
    path = folder / FAILED / f"{key}.json"
    if reason is None:
        path.unlink(missing_ok=True)
        return
    with write_atomically(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps({"reason": reason}) + "\n", encoding="utf-8")


def read_failures(folder: Path, rows: Sequence[CacheRow]) -> dict[str, str]:
    """Return key and reason of each scan that could not be encoded."""
    found = {}
    for row in rows:
        path = folder / FAILED / f"{row.key}.json"
        if path.exists():
            found[row.key] = str(json.loads(path.read_text(encoding="utf-8"))["reason"])
    return found


def write_summary(folder: Path) -> None:
    """Count the entries, compute the statistics of those that train, and write `summary.json`."""
    with locked(folder, "summary"):  # so the last process to finish counts all entries
        description = read_description(folder)
        failed = read_failures(folder, description.rows)
        parts: list[ChannelStatistics] = []
        num_entries = 0
        for row in encodable(description.rows, failed):
            try:
                entry = open_latent_entry(entry_path(folder, row.key), row.key, description.spec)
            except (CorruptedFile, FileNotFoundError):
                continue  # another process has not made this entry yet
            num_entries += 1
            if row.trains:
                parts.append(entry.record.sums)
        mean, std = pooled_statistics(parts) if parts else ([], [])
        summary = CacheSummary(
            rows_sha256=description.rows_sha256,
            num_entries=num_entries,
            failed=failed,
            mean=tuple(mean),
            std=tuple(std),
        )
        _write(folder / SUMMARY_FILE, summary)


def encodable(rows: Sequence[CacheRow], failed: Mapping[str, str]) -> list[CacheRow]:
    """Return the rows without failed scans."""
    return [row for row in rows if row.key not in failed]


def read_summary(folder: Path, description: CacheDescription) -> CacheSummary:
    """Return the statistics of a finished cache.

    Raises:
        InputError: some scans have not been processed.
    """
    if (folder / SUMMARY_FILE).exists():
        summary = _read(folder, SUMMARY_FILE, CacheSummary)
        expected = len(encodable(description.rows, summary.failed))
        if summary.rows_sha256 == description.rows_sha256 and summary.num_entries == expected:
            return summary
    raise InputError(
        f"{folder.name}: not all scans of this cache are encoded yet; run meduet-cache again. It continues "
        "where it stopped."
    )


@contextmanager
def locked(folder: Path, key: str) -> Iterator[None]:
    """Hold the lock of an entry for the block; wait until the lock is free."""
    with _lock_file(folder) as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 1, _byte_of(key))
        yield


@contextmanager
def try_lock(folder: Path, key: str) -> Iterator[bool]:
    """Yield whether the lock of an entry was free. If it was, the block holds the lock.

    Each entry locks one byte of a common file, so no lock files are left behind, and network file systems
    support such locks. The system frees the lock when the process ends, even if it was killed.
    """
    with _lock_file(folder) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte_of(key))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise InputError(
                    f"{folder.name}: files cannot be locked there ({error.strerror}); put the cache on a "
                    "disk that supports file locks."
                ) from error
            is_mine = False
        else:
            is_mine = True
        yield is_mine


def _lock_file(folder: Path) -> BinaryIO:
    try:
        return (folder / LOCK_FILE).open("a+b")
    except OSError as error:
        raise InputError(
            f"{folder.name}/{LOCK_FILE}: cannot be written ({refusal(error, folder)}); nothing was changed."
        ) from error


def _byte_of(key: str) -> int:
    return int(hashlib.sha256(key.encode()).hexdigest()[:15], 16)


def _read(folder: Path, name: str, kind: type):
    path = folder / name
    if not path.is_file():
        raise InputError(
            f"{folder.name}: holds no {name}, so it is no latent cache; create one with meduet-cache."
        )
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(
            f"{folder.name}/{name}: damaged, or written by another version; make the cache "
            "again in another folder."
        ) from error


def _write(path: Path, record: BaseModel) -> None:
    with write_atomically(path, overwrite=True) as temporary:
        temporary.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
