"""Filling a latent cache: each scan once, whoever else is at it, however often it was stopped.

A scan that cannot be encoded is noted with its reason and the others go on; storage that cannot be written to
stops the run, for it is no scan's fault. Every process reads, prepares, encodes and writes scans of its own.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from meduet_training.data.caches.latents import (
    Row,
    describe,
    entry_path,
    locked_if_free,
    note_failure,
    summarise,
)
from meduet_training.data.caches.latent_chunks import CorruptedFile
from meduet_training.data.caches.latent_entry import Source, encode_scan, entry_key, open_entry, save_entry
from meduet_training.data.cohort.scan import Scan, read_scan
from meduet_training.data.tokenizer_files import load_tokenizer
from meduet_training.data.augmentation.flips import fit_channel_maps
from meduet_training.runtime.retry import retry_storage
from napari_meduet.errors import InputError
from napari_meduet.models.devices import choose_device
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.volumes.files import file_sha256

WAIT_S = 1.0  # before asking again for scans that another encoder is at
LEFTOVER_S = 600.0  # a file under a temporary name that is older belongs to a process that was killed
CHANGED = "it changed after the manifest was written; run meduet-cohort scan again."

Done = Literal["encoded", "kept", "failed", "busy"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One scan to encode.

    Attributes:
        number: of the scan among those that the manifest uses, from 1.
        sha256: of its file, as the manifest has it or as it is now.
    """

    number: int
    key: str
    scan: Scan
    sha256: str

    @property
    def shown(self) -> str:
        """What messages call the scan: its number and its column `sha256`, never its name."""
        return f"Scan {self.number} ({self.sha256[:12]})"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a task.

    Attributes:
        reason: why it failed, or what was wrong with the entry that was there before.
        num_voxels: that were encoded.
    """

    task: Task
    done: Done
    reason: str = ""
    num_voxels: int = 0


@dataclass(kw_only=True)
class Report:
    """What a run did."""

    counts: Counter[str] = field(default_factory=Counter)
    failed: list[Outcome] = field(default_factory=list)
    mended: list[Outcome] = field(default_factory=list)
    num_voxels: int = 0

    def add(self, outcome: Outcome) -> None:
        self.counts[outcome.done] += 1
        self.num_voxels += outcome.num_voxels
        if outcome.done == "failed":
            self.failed.append(outcome)
        elif outcome.reason:
            self.mended.append(outcome)


@dataclass(frozen=True, kw_only=True)
class Filling:
    """How a cache is filled.

    Attributes:
        tokenizer: folder or file, as `open_tokenizer` takes it.
        workers: processes; 1 works in this one.
        shard: (k, n): every n-th scan, beginning with the k-th.
        is_strict: the first scan that fails ends the run.
        verifies: read every entry and every source again, and encode anew what is damaged.
    """

    folder: Path
    tokenizer: Path
    ct_profile: str | None = None
    device: str = "auto"
    workers: int = 1
    shard: tuple[int, int] = (1, 1)
    is_strict: bool = False
    verifies: bool = False

    def __post_init__(self) -> None:
        number, count = self.shard
        if not 1 <= number <= count:
            raise InputError(f"--shard K/N takes the K-th of N parts, 1 to N; got {number}/{count}.")
        if self.workers < 1:
            raise InputError(f"--workers counts processes and must be at least 1; got {self.workers}.")


def tasks_for(scans: Sequence[Scan]) -> list[Task]:
    """A task for each scan of a manifest.

    Raises:
        InputError: two rows are one scan.
    """
    tasks: dict[str, Task] = {}
    for number, scan in enumerate(scans, start=1):
        sha256 = scan.sha256 or _sha256_now(scan)
        key = entry_key(sha256, scan.series, scan.volume_index)
        if key in tasks:
            raise InputError(
                f"Scans {tasks[key].number} and {number} of the manifest are one and the same; "
                "meduet-cohort scan leaves copies out."
            )
        tasks[key] = Task(number=number, key=key, scan=scan, sha256=sha256)
    return list(tasks.values())


def fill_cache(
    filling: Filling,
    tasks: Sequence[Task],
    on_progress: Callable[[Outcome], None] = lambda outcome: None,
) -> Report:
    """Encode what is missing, and bring list and statistics up to date.

    Raises:
        InputError: the cache is another tokenizer's, cannot be written, or `is_strict` and a scan failed.
    """
    tokenizer, spec = load_tokenizer(filling.tokenizer, filling.ct_profile)
    choose_device(filling.device)
    rows = tuple(
        Row(
            key=task.key,
            domain=task.scan.domain,
            patient=task.scan.patient,
            modality=task.scan.modality,
            split=task.scan.split,
            may_train=task.scan.may_train,
        )
        for task in tasks
    )
    describe(filling.folder, spec, rows, lambda: fit_channel_maps(tokenizer))
    _remove_leftovers(filling.folder)
    number, count = filling.shard
    report, waiting = Report(), list(tasks)[number - 1 :: count]
    with _encoders(filling) as run:
        while waiting:
            busy = []
            for outcome in run(waiting):
                if outcome.done == "busy":
                    busy.append(outcome.task)
                    continue
                report.add(outcome)
                on_progress(outcome)
                if outcome.done == "failed" and filling.is_strict:
                    raise InputError(f"{outcome.task.shown}: {outcome.reason}")
            waiting = busy
            if waiting:
                time.sleep(WAIT_S)
    summarise(filling.folder)
    return report


class Encoder:
    """Encodes one scan at a time in this process."""

    def __init__(self, filling: Filling) -> None:
        self.filling = filling
        tokenizer, self.spec = load_tokenizer(filling.tokenizer, filling.ct_profile)
        self.tokenizer: Tokenizer = tokenizer.to(choose_device(filling.device))  # pyright: ignore

    def __call__(self, task: Task) -> Outcome:
        folder = self.filling.folder
        with locked_if_free(folder, task.key) as is_mine:
            if not is_mine:
                return Outcome(task=task, done="busy")
            path = entry_path(folder, task.key)
            try:
                wrong = retry_storage(lambda: self._fault(path, task))
                if wrong is None:
                    note_failure(folder, task.key, None)
                    return Outcome(task=task, done="kept")
                encoded, source = retry_storage(lambda: self._encode(task))
            except Exception as error:  # one scan's; the others go on
                reason = _shown(error, task)
                note_failure(folder, task.key, reason)
                return Outcome(task=task, done="failed", reason=reason)
            _save(lambda: save_entry(path, encoded, task.key, source), encoded.latent.nbytes // 2)
            note_failure(folder, task.key, None)
            return Outcome(task=task, done="encoded", reason=wrong, num_voxels=encoded.num_voxels)

    def _fault(self, path: Path, task: Task) -> str | None:
        """Why the entry must be made: empty if there is none yet; None if it is good.

        Raises:
            InputError: the source is no longer what the manifest says.
        """
        try:
            entry = open_entry(path, task.key, self.spec)
            if self.filling.verifies and not entry.cubes.read_all().isfinite().all():
                return "its numbers are not finite"
        except FileNotFoundError:
            return ""
        except CorruptedFile as damage:
            return str(damage)
        known, now = entry.words.source, _source(task.scan.path, task.sha256)
        if (self.filling.verifies or known != now) and _sha256_now(task.scan) != task.sha256:
            raise InputError(CHANGED)
        return None

    def _encode(self, task: Task):
        source = _source(task.scan.path, task.sha256)  # before it is read: a later change shows
        volume = read_scan(task.scan)
        if volume.sha256 != task.sha256:
            raise InputError(CHANGED)
        return encode_scan(self.tokenizer, self.spec, volume), source


def _save(write: Callable[[], None], num_bytes: int) -> None:
    try:
        retry_storage(write)
    except InputError as error:
        raise InputError(
            f"{error} An entry needs {num_bytes / 1e6:.2f} MB. What was finished is kept: the same command "
            "goes on from there."
        ) from error


@contextmanager
def _encoders(filling: Filling) -> Iterator[Callable[[Sequence[Task]], Iterator[Outcome]]]:
    """Gives a function that encodes tasks and yields outcomes as they come; processes end with the block."""
    if filling.workers == 1:
        encoder = Encoder(filling)
        yield lambda tasks: map(encoder, tasks)
        return
    pool = ProcessPoolExecutor(
        filling.workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(filling,),
    )
    try:
        yield lambda tasks: _as_they_come(pool, tasks)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _as_they_come(pool: ProcessPoolExecutor, tasks: Sequence[Task]) -> Iterator[Outcome]:
    try:
        for future in as_completed([pool.submit(_work, task) for task in tasks]):
            yield future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "A worker process ended abruptly: it was killed, or memory ran out. What was finished is kept; "
            "run the same command again, with fewer --workers if memory is short."
        ) from error


_encoder: Encoder | None = None  # of a worker process


def _start_worker(filling: Filling) -> None:
    global _encoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_leave_with_parent, name="parent watch", daemon=True).start()
    torch.set_num_threads(max(1, torch.get_num_threads() // filling.workers))
    _encoder = Encoder(filling)


def _work(task: Task) -> Outcome:
    assert _encoder is not None
    return _encoder(task)


def _leave_with_parent() -> None:
    """A worker whose parent was killed would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _source(path: Path, sha256: str) -> Source:
    """The size and the latest change of a file, or of all files in a folder of DICOM."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    states = [file.stat() for file in files if file.is_file()]
    return Source(
        sha256=sha256,
        num_bytes=sum(state.st_size for state in states),
        modified_ns=max((state.st_mtime_ns for state in states), default=0),
    )


def _sha256_now(scan: Scan) -> str:
    """Of the file as it is; of a scan of several files as `Volume.sha256` counts it.

    A file that cannot be read gets a digest of its place: encoding it will say what is wrong.
    """
    several = scan.path.is_dir() or scan.path.suffix.lower() in (".mhd", ".nhdr")  # voxels lie beside these
    try:
        return read_scan(scan).sha256 if several else retry_storage(lambda: file_sha256(scan.path))
    except (InputError, OSError):
        return "unreadable " + entry_key(str(scan.path), scan.series, scan.volume_index)


def _shown(error: Exception, task: Task) -> str:
    """The reason without the name of the file: names tell of patients."""
    reason = " ".join(str(error).split())
    if not isinstance(error, InputError):
        reason = f"{type(error).__name__}: {reason}"
    for name in (str(task.scan.path), task.scan.path.name):
        reason = reason.replace(name, "the scan")
    return reason


def _remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed left under temporary names."""
    now = time.time()
    for place in (folder, *(child for child in folder.iterdir() if child.is_dir())):
        for path in place.glob(".*-0.*"):
            try:
                if now - path.stat().st_mtime > LEFTOVER_S:
                    path.unlink()
            except FileNotFoundError:
                continue  # another encoder was quicker
