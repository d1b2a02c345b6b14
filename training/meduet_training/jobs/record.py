"""What is on disk of a job: one folder, which is also the folder of its run.

`job.json` says what was asked and is written by the submission alone. `attempts.jsonl` says what became of it
and is written by the job alone, a row at each start and each end. `cancelled` is there once somebody asked
for its end. Each file has one writer, so that none needs a lock.
"""

import json
import re
import secrets
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from meduet_training.runtime.folders import make_folder
from napari_meduet.errors import InputError

JOB_FILE = "job.json"
ATTEMPTS = "attempts.jsonl"
CANCELLED = "cancelled"
CONFIG = "config.yaml"
LOG = "log"
SCHEDULER = "scheduler"  # what submitit and the scheduler write of their own
PRIVATE = 0o700
ABANDONED_SECONDS = 3600  # to make a folder takes a moment
JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,80}")


class Resources(BaseModel):
    """What a job asks for.

    Attributes:
        gpus: on each node; 0 runs one process on its processors, otherwise there is a process for each GPU.
        hours: after which SLURM ends an attempt; it saves before, and goes on in the next.
        sbatch: further options of sbatch, by their long names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpus: int = 1
    nodes: int = 1
    hours: float | None = None
    partition: str | None = None
    sbatch: dict[str, str] = {}

    @property
    def processes_per_node(self) -> int:
        return max(1, self.gpus)

    @property
    def processes(self) -> int:
        return self.nodes * self.processes_per_node


class Job(BaseModel):
    """One job, as it was submitted.

    Attributes:
        folder: absolute, and the same on every node.
        directory: where it was submitted, which relative paths of its configuration begin at.
        scheduler_id: SLURM's number, or the process that supervises it on a plain machine.
        local_gpus: those it uses on a plain machine; SLURM chooses its own.
        rows_before: of `attempts.jsonl`, from before it was resumed.
        command: what each of its processes runs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: str
    folder: Path
    directory: Path
    executor: Literal["slurm", "local"]
    scheduler_id: str | None = None
    local_gpus: tuple[int, ...] = ()
    rows_before: int = 0
    submitted: str
    submitted_from: str
    resources: Resources
    command: tuple[str, ...]

    @property
    def log(self) -> Path:
        return self.folder / LOG

    @property
    def is_cancelled(self) -> bool:
        return (self.folder / CANCELLED).exists()


class Attempt(BaseModel):
    """A row of `attempts.jsonl`: that the job started, or how an attempt ended.

    Attributes:
        outcome: None at a start.
        checkpoint: the newest at an end, by its name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    time: str
    host: str
    outcome: Literal["finished", "failed", "requeued", "cancelled"] | None = None
    exit_code: int | None = None
    reason: str = ""
    checkpoint: str = ""


def now() -> str:
    """The time, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_job_id(name: str) -> str:
    """A name that no other job has: what it is, when it was submitted, and four letters of chance."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40] or "job"
    return f"{plain}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def job_folder(jobs: Path, job_id: str) -> Path:
    """Where a job's folder will be; that of all jobs is made.

    Raises:
        InputError: it cannot be made, or SLURM could not use it.
    """
    make_folder(jobs)
    folder = jobs.resolve() / job_id
    if "%" in str(folder):
        raise InputError(f"{jobs}: SLURM would read the % in this path as its own; choose another folder.")
    return folder


def make_job(job: Job, config: bytes) -> None:
    """Make the job's folder, which its owner alone can open, with its description and its configuration.

    It appears with both or not at all, so that a submission that was killed leaves a job or none.

    Raises:
        InputError: it cannot be made.
    """
    jobs = job.folder.parent
    _remove_unfinished(jobs)
    made = jobs / f".{job.job}"
    try:
        made.mkdir(mode=PRIVATE)
        (made / CONFIG).write_bytes(config)
        (made / JOB_FILE).write_text(_text(job), encoding="utf-8")
        made.rename(job.folder)
    except OSError as error:
        shutil.rmtree(made, ignore_errors=True)
        raise InputError(
            f"{jobs}: no folder can be made there ({error.strerror}); choose another."
        ) from error


def write_job(job: Job) -> None:
    """Write `job.json`, in place of what was there."""
    from napari_meduet.volumes.files import write_atomically  # brings readers along: a job starts without

    with write_atomically(job.folder / JOB_FILE, overwrite=True) as temporary:
        temporary.write_text(_text(job), encoding="utf-8")


def _text(job: Job) -> str:
    return job.model_dump_json(indent=2) + "\n"


def _remove_unfinished(jobs: Path) -> None:
    """Remove what submissions left that were killed while they made a folder."""
    for path in jobs.glob(".*-*"):
        if JOB_ID.fullmatch(path.name[1:]) and time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def read_job(jobs: Path, job_id: str) -> Job:
    """The job of that name.

    Raises:
        InputError: there is none, or its file is not what was written.
    """
    if not JOB_ID.fullmatch(job_id) or not (jobs / job_id / JOB_FILE).is_file():
        raise InputError(f"{job_id}: there is no such job in {jobs}; `jobs list` names those that are there.")
    return read_job_folder(jobs / job_id)


def read_job_folder(folder: Path) -> Job:
    """The job whose folder this is.

    Raises:
        InputError: its file is not what was written.
    """
    try:
        job = Job.model_validate_json((folder / JOB_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(f"{folder.name}/{JOB_FILE}: not the description of a job; was it edited?") from error
    return job.model_copy(update={"folder": folder.resolve()})


def list_jobs(jobs: Path) -> list[Job]:
    """All jobs in the folder, the newest first. One whose file is damaged is left out."""
    found = []
    for path in jobs.glob(f"[!.]*/{JOB_FILE}"):
        try:
            found.append(read_job_folder(path.parent))
        except InputError:
            continue
    return sorted(found, key=lambda job: (job.submitted, job.job), reverse=True)


def add_attempt(folder: Path, attempt: Attempt) -> None:
    """Append a row."""
    with (folder / ATTEMPTS).open("a", encoding="utf-8") as file:
        file.write(attempt.model_dump_json() + "\n")


def read_attempts(folder: Path) -> list[Attempt]:
    """Every start and end so far; a row that a kill cut off is left out."""
    try:
        lines = (folder / ATTEMPTS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(Attempt.model_validate_json(line))
        except ValidationError:
            continue
    return found


def last_metrics(folder: Path) -> dict[str, object] | None:
    """The last whole row of the run's `log.jsonl`."""
    try:
        with (folder / "log.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 65536))
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            return json.loads(line)
        except ValueError:
            continue
    return None
