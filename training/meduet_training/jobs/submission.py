"""Submit a job, cancel it, and resume a job that ended early.

The job is checked before it is queued, so that an error does not appear only after a night in the queue.
executors.py hands it to SLURM or to this machine; store.py writes its folder.
"""

import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from meduet_training.jobs.choices import Executor, ExecutorChoice
from meduet_training.jobs.executors import (
    choose_gpus,
    has_slurm,
    scheduler_states,
    send_stop_signal,
    submit_to_executor,
)
from meduet_training.jobs.state import Status, status
from meduet_training.jobs.store import (
    CANCELLED,
    CONFIG,
    Job,
    Resources,
    create_job_folder,
    job_folder,
    list_jobs,
    new_job_id,
    now,
    read_attempts,
    write_job,
)
from napari_meduet.errors import InputError

# Options of sbatch that executors.py or submitit sets.
OWN_SBATCH = {"output", "error", "open-mode", "requeue", "no-requeue", "signal", "array", "wrap", "job-name"}


def pretraining_command(config: Path, folder: Path, processes: int) -> tuple[str, ...]:
    """Return the command of a pretraining whose run folder and configuration are those of the job.

    Args:
        config: configuration file, which is checked.
        folder: folder of the job.
        processes: number of processes on all nodes together.

    Raises:
        InputError: the pretraining cannot be run with this configuration.
    """
    from meduet_training.data.sources.step_batches import Shard
    from meduet_training.tasks.pretraining.config import ONE_SOURCE
    from meduet_training.tasks.pretraining.task import PRETRAINING

    run = PRETRAINING.read(config, {})
    if run.data is None:
        raise InputError(f"{config.name}: {ONE_SOURCE}")
    for name in ("cache", "windows", "scans", "tokenizer"):
        path: Path | None = getattr(run.data, name)
        if path is not None and not path.exists():
            raise InputError(
                f"data.{name}: there is no {path} on this machine. Relative paths start at {Path.cwd()}."
            )
    shard = Shard(num_ranks=processes, accumulate=run.hardware.accumulate)
    try:
        shard.rows(run.training.batch, in_pairs=bool(run.training.objective.pairing))
    except ValueError as error:
        raise InputError(f"{config.name}: {error}") from error
    program = (sys.executable, "-m", "meduet_training.commands.pretrain", "run")
    return (*program, "--config", str(folder / CONFIG), "--output", str(folder))


def submit(
    config: Path,
    jobs: Path,
    resources: Resources,
    executor: ExecutorChoice = "auto",
    name: str | None = None,
    command: Callable[[Path, Path, int], Sequence[str]] = pretraining_command,
) -> Job:
    """Create the job's folder and submit the job. If the submission fails, the folder is removed.

    Args:
        config: configuration file of the training.
        jobs: folder of all jobs.
        name: beginning of the job's name. Default: the name of the configuration file.
        command: function that returns the command of each process, from the configuration file, the folder of
            the job and the number of processes. Default: a pretraining.

    Raises:
        InputError: the configuration cannot be read, or the executor cannot provide the resources.
    """
    chosen = _choose_executor(executor)
    _check_resources(resources, chosen)
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
    create_job_folder(job, text)
    try:
        return _submit_and_store_id(job)
    except Exception:  # not after Ctrl-C, because the job may have started
        shutil.rmtree(folder)
        raise


def resume(jobs: Path, job: Job) -> Job:
    """Submit a job again that was cancelled, lost or failed. It continues from its newest checkpoint.

    Raises:
        InputError: the job still runs, or it is complete.
    """
    found = status(job)
    if not found.is_over or found.state == "finished":
        raise InputError(f"{job.job}: this job is {found.state}, so there is nothing to resume.")
    gpus = choose_gpus(job.resources.gpus, _busy_gpus(jobs)) if job.executor == "local" else ()
    (job.folder / CANCELLED).unlink(missing_ok=True)
    changes = {
        "local_gpus": gpus,
        "scheduler_id": None,
        "rows_before": len(read_attempts(job.folder)),
        "submitted": now(),
        "submitted_from": socket.gethostname(),
    }
    job = job.model_copy(update=changes)
    write_job(job)
    return _submit_and_store_id(job)


def cancel(job: Job) -> Status:
    """Signal a job to save a checkpoint and to end, and return its status. It ends a little later.

    Raises:
        InputError: the job has already ended, or its executor does not answer.
    """
    found = status(job)
    if found.is_over:
        raise InputError(f"{job.job}: this job has already ended ({found.state}).")
    (job.folder / CANCELLED).touch()
    send_stop_signal(job)
    return status(job)


def _submit_and_store_id(job: Job) -> Job:
    job = job.model_copy(update={"scheduler_id": submit_to_executor(job)})
    write_job(job)
    return job


def _choose_executor(executor: ExecutorChoice) -> Executor:
    if executor == "auto":
        return "slurm" if has_slurm() else "local"
    if executor == "slurm" and not has_slurm():
        raise InputError(
            "This machine has no sbatch, so it cannot submit to SLURM. Log in to the login node of the "
            "cluster, or use --executor local."
        )
    return executor


def _check_resources(resources: Resources, executor: Executor) -> None:
    if resources.gpus < 0 or resources.nodes < 1:
        raise InputError(
            f"--gpus is {resources.gpus} and --nodes is {resources.nodes}. Give --gpus 0 or more, and "
            "--nodes 1 or more."
        )
    if resources.hours is not None and resources.hours <= 0:
        raise InputError(
            f"--hours is the time limit of an attempt and must be positive; got {resources.hours}."
        )
    slurm_only = {
        "--nodes": resources.nodes > 1,
        "--hours": resources.hours is not None,
        "--partition": resources.partition is not None,
        "--sbatch": bool(resources.sbatch),
    }
    given = [option for option, is_given in slurm_only.items() if is_given]
    if given and executor == "local":
        raise InputError(
            f"{' and '.join(given)}: only SLURM can do this, and this job would run on this machine. Omit "
            "the option."
        )
    if own := sorted(OWN_SBATCH & resources.sbatch.keys()):
        raise InputError(f"--sbatch {own[0]}: the jobs set this option themselves. Omit it.")


def _busy_gpus(jobs: Path) -> set[int]:
    """Return the indices of the GPUs of this machine that jobs of this folder use now."""
    local = [job for job in list_jobs(jobs) if job.executor == "local" and job.local_gpus]
    running = scheduler_states(local)
    return {gpu for job in local if job.job in running for gpu in job.local_gpus}
