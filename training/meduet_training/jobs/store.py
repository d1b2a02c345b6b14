"""The files of a job. Each job has one folder, which is also the folder of its run.

`job.json` describes the job; the submission writes it. `attempts.jsonl` has a row for each start and each end
of an attempt; the job writes it. A file `cancelled` marks a job that the user cancelled. Each file has one
writer, so no file needs a lock. state.py computes the state of a job from these files.
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

from meduet_training.jobs.choices import Executor
from meduet_training.runtime.folders import make_folder
from napari_meduet.errors import InputError

JOB_FILE = "job.json"
ATTEMPTS_FILE = "attempts.jsonl"
METRICS_FILE = "log.jsonl"  # the training writes it (runtime/progress.py)
CANCELLED = "cancelled"
CONFIG = "config.yaml"
LOG = "log"
SCHEDULER = "scheduler"  # subfolder for the files of submitit and of the scheduler
PRIVATE = 0o700
ABANDONED_SECONDS = 3600  # creating a job folder takes less than a second
TAIL_BYTES = 65536  # enough for the last row of a metrics file
Outcome = Literal["finished", "failed", "requeued", "cancelled"]
JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,80}")


class Resources(BaseModel):
    """The resources that a job requests.

    Attributes:
        gpus: number of GPUs on each node, with one process for each. 0: one process on the CPUs of a node.
        hours: time limit of one attempt on SLURM. The job saves before, and continues in the next attempt.
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
    """A job as it was submitted.

    Attributes:
        job: name of the job, which is unique.
        folder: absolute path, the same on every node.
        directory: working directory of the submission. Relative paths in the configuration start here.
        scheduler_id: job number of SLURM, or process id of the supervisor on a plain machine.
        local_gpus: indices of the GPUs on a plain machine. SLURM chooses its own.
        rows_before: number of rows in `attempts.jsonl` when the job was last submitted.
        command: command that each process runs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: str
    folder: Path
    directory: Path
    executor: Executor
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


class AttemptRecord(BaseModel):
    """A row of `attempts.jsonl`: the start or the end of an attempt.

    Attributes:
        outcome: None at a start.
        checkpoint: file name of the newest checkpoint at the end.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    time: str
    host: str
    outcome: Outcome | None = None
    exit_code: int | None = None
    reason: str = ""
    checkpoint: str = ""


def now() -> str:
    """Return the current time in UTC, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_job_id(name: str) -> str:
    """Return a unique name for a job: the given name, the time, and four random hexadecimal digits."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40] or "job"
    return f"{plain}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def job_folder(jobs: Path, job_id: str) -> Path:
    """Return the path of a job's folder, and create the folder of all jobs.

    Raises:
        InputError: the folder of all jobs cannot be created, or SLURM cannot use its path.
    """
    make_folder(jobs)
    folder = jobs.resolve() / job_id
    if "%" in str(folder):
        raise InputError(f"{jobs}: SLURM would replace the % in this path. Choose another folder.")
    return folder


def create_job_folder(job: Job, config: bytes) -> None:
    """Create the job's folder with its description and its configuration. Only the owner can open it.

    The folder appears with both files or not at all, so that a killed submission leaves no incomplete job.

    Raises:
        InputError: the folder cannot be created.
    """
    jobs = job.folder.parent
    _remove_unfinished(jobs)
    temporary = jobs / f".{job.job}"
    try:
        temporary.mkdir(mode=PRIVATE)
        (temporary / CONFIG).write_bytes(config)
        (temporary / JOB_FILE).write_text(_text(job), encoding="utf-8")
        temporary.rename(job.folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise InputError(
            f"{jobs}: no job folder can be created here ({error.strerror}). Choose another folder."
        ) from error


def write_job(job: Job) -> None:
    """Write `job.json`, and replace an earlier version."""
    from napari_meduet.volumes.files import write_atomically  # imports all readers, which a job does not need

    with write_atomically(job.folder / JOB_FILE, overwrite=True) as temporary:
        temporary.write_text(_text(job), encoding="utf-8")


def _text(job: Job) -> str:
    return job.model_dump_json(indent=2) + "\n"


def _remove_unfinished(jobs: Path) -> None:
    """Remove the temporary folders of submissions that were killed."""
    for path in jobs.glob(".*-*"):
        if JOB_ID.fullmatch(path.name[1:]) and time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def read_job(jobs: Path, job_id: str) -> Job:
    """Return the job with this name.

    Raises:
        InputError: there is no such job, or its `job.json` is damaged.
    """
    if not JOB_ID.fullmatch(job_id) or not (jobs / job_id / JOB_FILE).is_file():
        raise InputError(f"{job_id}: there is no such job in {jobs}. `jobs list` shows all jobs.")
    return read_job_folder(jobs / job_id)


def read_job_folder(folder: Path) -> Job:
    """Return the job in this folder.

    Raises:
        InputError: its `job.json` is damaged.
    """
    try:
        job = Job.model_validate_json((folder / JOB_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(
            f"{folder.name}/{JOB_FILE}: this file is not the description of a job. It may have been edited."
        ) from error
    return job.model_copy(update={"folder": folder.resolve()})


def list_jobs(jobs: Path) -> list[Job]:
    """Return all jobs in the folder, the newest first, without those whose `job.json` is damaged."""
    found = []
    for path in jobs.glob(f"[!.]*/{JOB_FILE}"):
        try:
            found.append(read_job_folder(path.parent))
        except InputError:
            continue
    return sorted(found, key=lambda job: (job.submitted, job.job), reverse=True)


def add_attempt(folder: Path, record: AttemptRecord) -> None:
    """Append a row to `attempts.jsonl`."""
    with (folder / ATTEMPTS_FILE).open("a", encoding="utf-8") as file:
        file.write(record.model_dump_json() + "\n")


def read_attempts(folder: Path) -> list[AttemptRecord]:
    """Return all starts and ends so far, without rows that are incomplete because the process was killed."""
    try:
        lines = (folder / ATTEMPTS_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(AttemptRecord.model_validate_json(line))
        except ValidationError:
            continue
    return found


def last_metrics(folder: Path) -> dict[str, object] | None:
    """Return the last complete row of the run's `log.jsonl`."""
    try:
        with (folder / METRICS_FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            return json.loads(line)
        except ValueError:
            continue
    return None
