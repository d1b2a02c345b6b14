"""A latent cache: a folder with an entry for each scan, what latents mean, and which scans they stand for.

    cache.json     specification, channel maps of the turns, a row for each scan of the manifest
    entries/       KEY.safetensors, whole or not there (latent_entry.py)
    failed/        KEY.json with the reason, for scans that could not be encoded
    summary.json   standardisation of the channels, once all are there
    cache.lock     a byte for each entry, locked while it is made

Rows hold hashes and labels, no path and no name. An entry whose scan is no longer in the manifest is not
used. Who fills a cache is `latent_encoding.py`'s business, who reads it `sources/latents.py`'s.
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

from meduet_training.data.caches.latent_chunks import CorruptedFile
from meduet_training.data.caches.latent_entry import ChannelSums, open_entry, pooled_statistics
from meduet_training.data.caches.latent_spec import LatentSpec
from meduet_training.data.cohort.scan import Split
from meduet_training.data.augmentation.flips import Map
from meduet_training.runtime.folders import make_folder
from napari_meduet.errors import InputError
from napari_meduet.volumes.files import write_atomically
from napari_meduet.volumes.volume import Modality
from napari_meduet.volumes.writing import refusal

CACHE_FILE, SUMMARY_FILE, LOCK_FILE = "cache.json", "summary.json", "cache.lock"
ENTRIES, FAILED = "entries", "failed"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(_Record):
    """One scan, by the key of its entry."""

    key: str
    domain: str
    patient: str
    modality: Modality
    split: Split
    may_train: bool  # the licence allows that a model trained on the scan is shipped

    @property
    def trains(self) -> bool:
        return self.split == "train" and self.may_train


class Description(_Record):
    """What `cache.json` says."""

    spec: LatentSpec
    turns: dict[str, Map]
    rows: tuple[Row, ...]

    @property
    def rows_sha256(self) -> str:
        text = json.dumps([row.model_dump() for row in self.rows])
        return hashlib.sha256(text.encode()).hexdigest()


class Summary(_Record):
    """What `summary.json` says: how many entries there are, and what the latents to train on span."""

    rows_sha256: str
    num_entries: int
    failed: dict[str, str]  # by key, with the reason
    mean: tuple[float, ...]  # of each channel, over the body; empty where nothing may train
    std: tuple[float, ...]


def entry_path(folder: Path, key: str) -> Path:
    return folder / ENTRIES / f"{key}.safetensors"


def read_description(folder: Path) -> Description:
    """What a cache says of itself.

    Raises:
        InputError: the folder holds no cache, or another version wrote it.
    """
    return _read(folder, CACHE_FILE, Description)


def describe(
    folder: Path, spec: LatentSpec, rows: tuple[Row, ...], make_turns: Callable[[], dict[str, Map]]
) -> None:
    """Make the cache, or bring the rows of the one that is there up to date.

    Raises:
        InputError: its latents mean something else, or it cannot be written.
    """
    for name in (ENTRIES, FAILED):
        make_folder(folder / name)
    if (folder / CACHE_FILE).exists():
        found = read_description(folder)
        if difference := spec.difference(found.spec):
            raise InputError(
                f"{folder.name}: this cache was made {difference}; give another folder with -o, or what it "
                "was made with."
            )
        if found.rows == rows:
            return
        turns = found.turns
    else:
        turns = make_turns()
    _write(folder / CACHE_FILE, Description(spec=spec, turns=turns, rows=rows))


def note_failure(folder: Path, key: str, reason: str | None) -> None:
    """Keep why a scan has no entry; None: it has one now."""
    path = folder / FAILED / f"{key}.json"
    if reason is None:
        path.unlink(missing_ok=True)
        return
    with write_atomically(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps({"reason": reason}) + "\n", encoding="utf-8")


def failures(folder: Path, rows: Sequence[Row]) -> dict[str, str]:
    """The rows that could not be encoded, with the reason."""
    found = {}
    for row in rows:
        path = folder / FAILED / f"{row.key}.json"
        if path.exists():
            found[row.key] = str(json.loads(path.read_text(encoding="utf-8"))["reason"])
    return found


def summarise(folder: Path) -> None:
    """Count the entries, and compute the statistics of those that may train."""
    with locked(folder, "summary"):  # the last encoder to finish has seen all entries
        description = read_description(folder)
        failed = failures(folder, description.rows)
        parts: list[ChannelSums] = []
        num_entries = 0
        for row in with_entry(description.rows, failed):
            try:
                entry = open_entry(entry_path(folder, row.key), row.key, description.spec)
            except (CorruptedFile, FileNotFoundError):
                continue  # another encoder is not there yet
            num_entries += 1
            if row.trains:
                parts.append(entry.words.sums)
        mean, std = pooled_statistics(parts) if parts else ([], [])
        summary = Summary(
            rows_sha256=description.rows_sha256,
            num_entries=num_entries,
            failed=failed,
            mean=tuple(mean),
            std=tuple(std),
        )
        _write(folder / SUMMARY_FILE, summary)


def with_entry(rows: Sequence[Row], failed: Mapping[str, str]) -> list[Row]:
    """The rows that did not fail."""
    return [row for row in rows if row.key not in failed]


def read_summary(folder: Path, description: Description) -> Summary:
    """The statistics of a finished cache.

    Raises:
        InputError: not all scans have been encoded.
    """
    if (folder / SUMMARY_FILE).exists():
        summary = _read(folder, SUMMARY_FILE, Summary)
        wanted = len(with_entry(description.rows, summary.failed))
        if summary.rows_sha256 == description.rows_sha256 and summary.num_entries == wanted:
            return summary
    raise InputError(
        f"{folder.name}: not all scans of this cache are encoded yet; run meduet-cache again, it goes on "
        "where it stopped."
    )


@contextmanager
def locked(folder: Path, key: str) -> Iterator[None]:
    """Hold the lock of an entry, waiting for it."""
    with _lock_file(folder) as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 1, _byte_of(key))
        yield


@contextmanager
def locked_if_free(folder: Path, key: str) -> Iterator[bool]:
    """Whether the lock of an entry could be had. The system frees it when the process ends, however it ends.

    A byte of one file for each entry: nothing is left behind, and network file systems know such locks.
    """
    with _lock_file(folder) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte_of(key))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise InputError(
                    f"{folder.name}: no file can be locked there ({error.strerror}); put the cache on a disk "
                    "that can."
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
            f"{folder.name}: holds no {name}, so it is no latent cache; make it with meduet-cache."
        )
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(
            f"{folder.name}/{name}: damaged, or of another version; make the cache again in another folder."
        ) from error


def _write(path: Path, record: BaseModel) -> None:
    with write_atomically(path, overwrite=True) as temporary:
        temporary.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
