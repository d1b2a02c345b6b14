"""Submitting a job, ending it, and going on with one that ended early."""

import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Literal

from meduet_training.jobs.executors import choose_gpus, hand_over, has_slurm, scheduler_states, signal_end
from meduet_training.jobs.record import (
    CANCELLED,
    CONFIG,
    Job,
    Resources,
    job_folder,
    list_jobs,
    make_job,
    new_job_id,
    now,
    read_attempts,
    write_job,
)
from meduet_training.jobs.state import State, Status, status
from napari_meduet.errors import InputError

OWN_SBATCH = {"output", "error", "open-mode", "requeue", "no-requeue", "signal", "array", "wrap", "job-name"}


class Executor(StrEnum):
    auto = "auto"  # SLURM where it is, else this machine
    slurm = "slurm"
    local = "local"


def pretraining(config: Path, folder: Path, processes: int) -> tuple[str, ...]:
    """The command of a pretraining whose run folder and configuration are the job's.

    Raises:
        InputError: it cannot be run as it is configured; better said now than after a night in the queue.
    """
    from meduet_training.data.sources.step_batches import Shard
    from meduet_training.tasks.pretraining.config import ONE_SOURCE
    from meduet_training.tasks.pretraining.task import PRETRAINING

    wanted = PRETRAINING.read(config, {})
    if wanted.data is None:
        raise InputError(f"{config.name}: {ONE_SOURCE}")
    for name in ("cache", "windows", "scans", "tokenizer"):
        path: Path | None = getattr(wanted.data, name)
        if path is not None and not path.exists():
            raise InputError(f"data.{name}: there is no {path} here, seen from {Path.cwd()}.")
    share = Shard(num_ranks=processes, accumulate=wanted.hardware.accumulate)
    try:
        share.rows(wanted.training.batch, in_pairs=bool(wanted.training.objective.pairing))
    except ValueError as error:
        raise InputError(f"{config.name}: {error}") from error
    program = (sys.executable, "-m", "meduet_training.commands.pretrain", "run")
    return (*program, "--config", str(folder / CONFIG), "--output", str(folder))


def submit(
    config: Path,
    jobs: Path,
    resources: Resources,
    executor: Executor = Executor.auto,
    name: str | None = None,
    command: Callable[[Path, Path, int], Sequence[str]] = pretraining,
) -> Job:
    """Make the job's folder and hand it over; nothing is left behind if that fails.

    Args:
        jobs: the folder of all jobs.
        name: what the job is called; the configuration's file name by default.
        command: what each process runs, for a configuration, the folder of its job and the number of
            processes; a pretraining by default.

    Raises:
        InputError: there is no such configuration, or the executor cannot give what is asked for.
    """
    chosen = _chosen(executor)
    _check(resources, chosen)
    gpus = choose_gpus(resources.gpus, _busy_gpus(jobs)) if chosen == "local" else ()
    try:
        text = config.read_bytes()
    except OSError as error:
        raise InputError(f"{config.name}: the configuration cannot be read ({error.strerror}).") from error
    job_id = new_job_id(name or config.stem)
    folder = job_folder(jobs, job_id)
    job = Job(
        job=job_id,
        folder=folder,
        directory=Path.cwd(),
        executor=chosen,
        local_gpus=gpus,
        submitted=now(),
        submitted_from=socket.gethostname(),
        resources=resources,
        command=tuple(command(config, folder, resources.processes)),
    )
    make_job(job, text)
    try:
        return _handed_over(job)
    except Exception:  # not for Ctrl-C: it may have started already
        shutil.rmtree(folder)
        raise


def resume(jobs: Path, job: Job) -> Job:
    """Submit a job again that was cancelled, lost or failed; it goes on from its last checkpoint.

    Raises:
        InputError: it still runs, or is complete.
    """
    found = status(job)
    if not found.state.is_over or found.state is State.finished:
        raise InputError(f"{job.job}: is {found.state}; there is nothing to resume.")
    gpus = choose_gpus(job.resources.gpus, _busy_gpus(jobs)) if job.executor == "local" else ()
    (job.folder / CANCELLED).unlink(missing_ok=True)
    changes = {
        "local_gpus": gpus, "scheduler_id": None, "rows_before": len(read_attempts(job.folder)),
        "submitted": now(), "submitted_from": socket.gethostname(),
    }  # fmt: skip
    job = job.model_copy(update=changes)
    write_job(job)
    return _handed_over(job)


def cancel(job: Job) -> Status:
    """Ask a job to save and end; it ends a little later.

    Raises:
        InputError: it is over already, or its executor does not answer.
    """
    found = status(job)
    if found.state.is_over:
        raise InputError(f"{job.job}: is over already ({found.state}).")
    (job.folder / CANCELLED).touch()
    signal_end(job)
    return status(job)


def _handed_over(job: Job) -> Job:
    job = job.model_copy(update={"scheduler_id": hand_over(job)})
    write_job(job)
    return job


def _chosen(executor: Executor) -> Literal["slurm", "local"]:
    if executor is Executor.auto:
        return "slurm" if has_slurm() else "local"
    if executor is Executor.slurm and not has_slurm():
        raise InputError(
            "This machine has no sbatch, so it cannot submit to SLURM: log in to the cluster's head node, or "
            "choose --executor local."
        )
    return "slurm" if executor is Executor.slurm else "local"


def _check(resources: Resources, executor: Literal["slurm", "local"]) -> None:
    if resources.gpus < 0 or resources.nodes < 1:
        raise InputError(
            f"{resources.gpus} GPUs on {resources.nodes} nodes were asked for; give --gpus 0 or more, and "
            "--nodes 1 or more."
        )
    if resources.hours is not None and resources.hours <= 0:
        raise InputError(
            f"--hours is the time limit of an attempt and must be positive; got {resources.hours}."
        )
    slurm_only = {
        "--nodes": resources.nodes > 1, "--hours": resources.hours is not None,
        "--partition": resources.partition is not None, "--sbatch": bool(resources.sbatch),
    }  # fmt: skip
    asked = [option for option, is_asked in slurm_only.items() if is_asked]
    if asked and executor == "local":
        raise InputError(
            f"{' and '.join(asked)}: only SLURM can do that, and this job would run on this machine; "
            "leave it out."
        )
    if own := sorted(OWN_SBATCH & resources.sbatch.keys()):
        raise InputError(f"--sbatch {own[0]}: the jobs set this themselves; leave it out.")


def _busy_gpus(jobs: Path) -> set[int]:
    """GPUs of this machine that jobs of this folder use now."""
    local = [job for job in list_jobs(jobs) if job.executor == "local" and job.local_gpus]
    running = scheduler_states(local)
    return {gpu for job in local if job.job in running for gpu in job.local_gpus}
