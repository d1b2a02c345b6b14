"""Fill a latent cache: encode every scan once, in several processes or on several machines.

A scan that cannot be encoded is recorded with its reason, and the other scans are encoded. If the storage
cannot be written to, the run stops. Each process reads, prepares, encodes and writes scans of its own. A run
that was stopped continues when the same command is given again. `latents.py` describes the folder.
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

from meduet_training.data.augmentation.flips import fit_channel_maps
from meduet_training.data.caches.latent_chunks import CorruptedFile
from meduet_training.data.caches.latent_entry import (
    SourceFile,
    encode_entry,
    latent_key,
    open_latent_entry,
    save_latent_entry,
)
from meduet_training.data.caches.latents import (
    CacheRow,
    create_or_update,
    entry_path,
    record_failure,
    try_lock,
    write_summary,
)
from meduet_training.data.cohort.scan import Scan, read_scan
from meduet_training.data.tokenizer_files import load_tokenizer
from meduet_training.runtime.retry import retry_storage
from napari_meduet.errors import InputError
from napari_meduet.models.devices import choose_device
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.volumes.files import file_sha256

WAIT_S = 1.0  # pause before checking again whether another process finished its scans
LEFTOVER_S = 600.0  # older temporary files belong to processes that were killed
CHANGED = "it changed after the manifest was written; run meduet-cohort scan again."

Status = Literal["encoded", "kept", "failed", "busy"]


@dataclass(frozen=True, kw_only=True)
class EncodingTask:
    """One scan to encode.

    Attributes:
        number: position of the scan among the scans that the manifest uses, from 1.
        key: key of its entry.
        scan: its row of the manifest.
        sha256: digest of its file, from the manifest or computed now.
    """

    number: int
    key: str
    scan: Scan
    sha256: str

    @property
    def shown(self) -> str:
        """The scan in messages: its number and digest, because file names can identify patients."""
        return f"Scan {self.number} ({self.sha256[:12]})"


@dataclass(frozen=True, kw_only=True)
class EncodingOutcome:
    """The result of a task.

    Attributes:
        status: what was done.
        reason: why the scan failed, or what was wrong with the previous entry.
        num_voxels: voxels that were encoded.
    """

    task: EncodingTask
    status: Status
    reason: str = ""
    num_voxels: int = 0


@dataclass(kw_only=True)
class CacheReport:
    """The results of a run.

    Attributes:
        counts: number of scans for each status.
        failed: scans without an entry.
        replaced: scans whose damaged entry was made again.
        num_voxels: voxels that were encoded.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failed: list[EncodingOutcome] = field(default_factory=list)
    replaced: list[EncodingOutcome] = field(default_factory=list)
    num_voxels: int = 0

    def add(self, outcome: EncodingOutcome) -> None:
        """Count the result of one scan."""
        self.counts[outcome.status] += 1
        self.num_voxels += outcome.num_voxels
        if outcome.status == "failed":
            self.failed.append(outcome)
        elif outcome.reason:
            self.replaced.append(outcome)


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """Options for filling a cache.

    Attributes:
        folder: the cache directory.
        tokenizer: folder or file that `load_tokenizer` reads.
        ct_profile: name of the intensity profile for CT; None for the tokenizer's own.
        device: "auto", "cpu", "cuda" or "mps".
        workers: number of processes; 1 encodes in this process.
        shard: (k, n): every n-th scan, beginning with the k-th.
        is_strict: stop at the first scan that fails.
        verifies: read every entry and every source file again, and replace damaged entries.
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
            raise InputError(f"--shard K/N needs K from 1 to N; got {number}/{count}.")
        if self.workers < 1:
            raise InputError(
                f"--workers is the number of processes and must be at least 1; got {self.workers}."
            )


def encoding_tasks(scans: Sequence[Scan]) -> list[EncodingTask]:
    """Return a task for each scan of a manifest.

    Raises:
        InputError: two rows are the same scan.
    """
    tasks: dict[str, EncodingTask] = {}
    for number, scan in enumerate(scans, start=1):
        sha256 = scan.sha256 or _sha256_now(scan)
        key = latent_key(sha256, scan.series, scan.volume_index)
        if key in tasks:
            raise InputError(
                f"Scans {tasks[key].number} and {number} of the manifest are the same scan. "
                "Make the manifest with meduet-cohort scan, which leaves copies out."
            )
        tasks[key] = EncodingTask(number=number, key=key, scan=scan, sha256=sha256)
    return list(tasks.values())


def fill_cache(
    options: CacheOptions,
    tasks: Sequence[EncodingTask],
    on_progress: Callable[[EncodingOutcome], None] = lambda outcome: None,
) -> CacheReport:
    """Encode the missing scans, update rows and statistics, and return the results.

    Args:
        on_progress: called after each scan.

    Raises:
        InputError: the cache was made with another specification or cannot be written, or `is_strict` is set
            and a scan failed.

    Examples:
        >>> options = CacheOptions(folder=Path("latents"), tokenizer=Path("models/mine"))
        >>> report = fill_cache(options, encoding_tasks(read_cohort(Path("cohort.csv"))))
        >>> report.counts["encoded"]
        412
    """
    tokenizer, spec = load_tokenizer(options.tokenizer, options.ct_profile)
    choose_device(options.device)
    rows = tuple(
        CacheRow(
            key=task.key,
            domain=task.scan.domain,
            patient=task.scan.patient,
            modality=task.scan.modality,
            split=task.scan.split,
            may_train=task.scan.may_train,
        )
        for task in tasks
    )
    create_or_update(options.folder, spec, rows, lambda: fit_channel_maps(tokenizer))
    _remove_leftovers(options.folder)
    number, count = options.shard
    report, waiting = CacheReport(), list(tasks)[number - 1 :: count]
    with _encoders(options) as encode:
        while waiting:
            busy = []
            for outcome in encode(waiting):
                if outcome.status == "busy":
                    busy.append(outcome.task)
                    continue
                report.add(outcome)
                on_progress(outcome)
                if outcome.status == "failed" and options.is_strict:
                    raise InputError(f"{outcome.task.shown}: {outcome.reason}")
            waiting = busy
            if waiting:
                time.sleep(WAIT_S)
    write_summary(options.folder)
    return report


class CacheEncoder:
    """Encodes one scan at a time in this process, and writes its entry."""

    def __init__(self, options: CacheOptions) -> None:
        self.options = options
        tokenizer, self.spec = load_tokenizer(options.tokenizer, options.ct_profile)
        self.tokenizer: Tokenizer = tokenizer.to(choose_device(options.device))  # pyright: ignore

    def __call__(self, task: EncodingTask) -> EncodingOutcome:
        folder = self.options.folder
        with try_lock(folder, task.key) as is_mine:
            if not is_mine:
                return EncodingOutcome(task=task, status="busy")
            path = entry_path(folder, task.key)
            try:
                wrong = retry_storage(lambda: self._fault(path, task))
                if wrong is None:
                    record_failure(folder, task.key, None)
                    return EncodingOutcome(task=task, status="kept")
                encoded, source = retry_storage(lambda: self._encode(task))
            except Exception as error:  # the other scans are still encoded
                reason = _shown(error, task)
                record_failure(folder, task.key, reason)
                return EncodingOutcome(task=task, status="failed", reason=reason)
            _save(lambda: save_latent_entry(path, encoded, task.key, source), encoded.latent.nbytes // 2)
            record_failure(folder, task.key, None)
            return EncodingOutcome(task=task, status="encoded", reason=wrong, num_voxels=encoded.num_voxels)

    def _fault(self, path: Path, task: EncodingTask) -> str | None:
        """Return why the entry must be made: "" if there is no entry, None if the entry is good.

        Raises:
            InputError: the source file changed after the manifest was written.
        """
        try:
            entry = open_latent_entry(path, task.key, self.spec)
            if self.options.verifies and not entry.chunks.read_all().isfinite().all():
                return "its numbers are not finite"
        except FileNotFoundError:
            return ""
        except CorruptedFile as damage:
            return str(damage)
        known, now = entry.record.source, _source(task.scan.path, task.sha256)
        if (self.options.verifies or known != now) and _sha256_now(task.scan) != task.sha256:
            raise InputError(CHANGED)
        return None

    def _encode(self, task: EncodingTask):
        source = _source(task.scan.path, task.sha256)  # read before the scan, so a later change is noticed
        volume = read_scan(task.scan)
        if volume.sha256 != task.sha256:
            raise InputError(CHANGED)
        return encode_entry(self.tokenizer, self.spec, volume), source


def _save(write: Callable[[], None], num_bytes: int) -> None:
    try:
        retry_storage(write)
    except InputError as error:
        raise InputError(
            f"{error} An entry needs {num_bytes / 1e6:.2f} MB. Finished entries are kept; the same command "
            "continues from there."
        ) from error


@contextmanager
def _encoders(
    options: CacheOptions,
) -> Iterator[Callable[[Sequence[EncodingTask]], Iterator[EncodingOutcome]]]:
    """Yield a function that encodes tasks and yields the results; the processes end with the block."""
    if options.workers == 1:
        encoder = CacheEncoder(options)
        yield lambda tasks: map(encoder, tasks)
        return
    pool = ProcessPoolExecutor(
        options.workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(options,),
    )
    try:
        yield lambda tasks: _in_order_of_completion(pool, tasks)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order_of_completion(
    pool: ProcessPoolExecutor, tasks: Sequence[EncodingTask]
) -> Iterator[EncodingOutcome]:
    try:
        for future in as_completed([pool.submit(_work, task) for task in tasks]):
            yield future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "A worker process ended abruptly: it was killed, or memory ran out. Finished entries are kept. "
            "Run the same command again, with fewer --workers if memory is short."
        ) from error


_encoder: CacheEncoder | None = None  # set in each worker process


def _start_worker(options: CacheOptions) -> None:
    global _encoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C
    threading.Thread(target=_exit_with_parent, name="parent watch", daemon=True).start()
    torch.set_num_threads(max(1, torch.get_num_threads() // options.workers))
    _encoder = CacheEncoder(options)


def _work(task: EncodingTask) -> EncodingOutcome:
    assert _encoder is not None
    return _encoder(task)


def _exit_with_parent() -> None:
    """End this worker when its parent process ends; it would otherwise wait for tasks without end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _source(path: Path, sha256: str) -> SourceFile:
    """Return size and time of the last change of a file, or of all files in a DICOM folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    states = [file.stat() for file in files if file.is_file()]
    return SourceFile(
        sha256=sha256,
        num_bytes=sum(state.st_size for state in states),
        modified_ns=max((state.st_mtime_ns for state in states), default=0),
    )


def _sha256_now(scan: Scan) -> str:
    """Return the digest of the scan's file now, or `Volume.sha256` for a scan of several files.

    An unreadable file gets a digest of its path; encoding it will then raise the error.
    """
    several = scan.path.is_dir() or scan.path.suffix.lower() in (".mhd", ".nhdr")  # voxels in another file
    try:
        return read_scan(scan).sha256 if several else retry_storage(lambda: file_sha256(scan.path))
    except (InputError, OSError):
        return "unreadable " + latent_key(str(scan.path), scan.series, scan.volume_index)


def _shown(error: Exception, task: EncodingTask) -> str:
    """Return the reason without the file name, because file names can identify patients."""
    reason = " ".join(str(error).split())
    if not isinstance(error, InputError):
        reason = f"{type(error).__name__}: {reason}"
    for name in (str(task.scan.path), task.scan.path.name):
        reason = reason.replace(name, "the scan")
    return reason


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary files of processes that were killed."""
    now = time.time()
    for place in (folder, *(child for child in folder.iterdir() if child.is_dir())):
        for path in place.glob(".*-0.*"):
            try:
                if now - path.stat().st_mtime > LEFTOVER_S:
                    path.unlink()
            except FileNotFoundError:
                continue  # another process removed it
