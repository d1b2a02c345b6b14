"""Handing a job to SLURM or to this machine, over submitit.

submitit usually pickles a function for the job to load. Its executors also take a plain command, and that is
all they get here: nothing is pickled, nothing unpickled (docs/decisions/0009-jobs.md).
"""

import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from meduet_training.jobs.machine import find_gpus
from meduet_training.jobs.record import SCHEDULER, Job
from napari_meduet.errors import InputError

SAVE_BEFORE_SECONDS = 120  # the end of SLURM's time limit: what a large checkpoint takes on a slow disk
LOCAL_REQUEUE = 144  # the exit code at which submitit's local executor starts a job anew, up to five times


def has_slurm() -> bool:
    """Whether this machine can submit to SLURM."""
    return shutil.which("sbatch") is not None


def hand_over(job: Job) -> str:
    """Give a job to its executor; returns the executor's number of it.

    Raises:
        InputError: it does not take the job.
    """
    command = shlex.join([sys.executable, "-m", "meduet_training.jobs.work", str(job.folder)])
    return _to_slurm(job, command) if job.executor == "slurm" else _to_this_machine(job, command)


def _to_slurm(job: Job, command: str) -> str:
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    wanted = job.resources
    executor = SlurmExecutor(folder=job.folder / SCHEDULER)
    executor.folder.mkdir(exist_ok=True)
    executor.update_parameters(
        job_name=job.job,
        nodes=wanted.nodes,
        ntasks_per_node=wanted.processes_per_node,
        gpus_per_node=wanted.gpus or None,
        time=math.ceil(wanted.hours * 60) if wanted.hours else None,
        partition=wanted.partition,
        stderr_to_stdout=True,
        use_srun=False,  # the job starts its processes itself, to know how they ended
        additional_parameters={"requeue": True, "signal": f"USR1@{SAVE_BEFORE_SECONDS}"} | wanted.sbatch,
    )
    try:
        return executor._submit_command(f"exec {command}").job_id
    except (FailedJobError, FailedSubmissionError) as error:
        reason = next(reversed(str(error).strip().splitlines()), "no reason given")
        raise InputError(f"SLURM did not take the job: {reason}. `--executor local` trains here.") from error


def _to_this_machine(job: Job, command: str) -> str:
    folder = job.folder / SCHEDULER
    folder.mkdir(exist_ok=True)
    starter = [sys.executable, "-m", "meduet_training.jobs.start_local", str(folder), command]
    with (folder / "supervisor.log").open("a") as log:
        # Streams and session of its own: the job must outlive the login that submitted it, and not hold it.
        started = subprocess.run(  # noqa: S603 our own program
            [*starter, *map(str, job.local_gpus)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            check=False,
        )
    if started.returncode:
        raise InputError(f"The job could not be started: {last_words(folder / 'supervisor.log')}")
    return (folder / "id").read_text().strip()


def choose_gpus(wanted: int, busy: set[int]) -> tuple[int, ...]:
    """GPUs of this machine that no job uses, those with most free memory first.

    Raises:
        InputError: there are not so many.
    """
    if not wanted:
        return ()
    found = find_gpus()
    free = [gpu for gpu in found if gpu.index not in busy]
    if len(found) < wanted:
        raise InputError(f"{wanted} GPUs were asked for, and this machine has {len(found)}; change --gpus.")
    if len(free) < wanted:
        raise InputError(
            f"{wanted} GPUs were asked for, and {len(found) - len(free)} of the {len(found)} here are used "
            "by other jobs; wait until they end (`jobs list`), or ask for fewer."
        )
    return tuple(gpu.index for gpu in sorted(free, key=lambda gpu: -gpu.free_gib)[:wanted])


def signal_end(job: Job) -> None:
    """Ask the executor to end a job; it saves first."""
    if job.executor == "slurm":
        slurm(["scancel", "--me", f"--name={job.job}"])
    elif supervisor := _supervisor(job):
        os.kill(supervisor, signal.SIGTERM)


def scheduler_states(jobs: list[Job]) -> dict[str, str]:
    """What the executor says of those of the jobs that it still knows, by job: `PENDING`, `RUNNING` ..."""
    states = {job.job: "RUNNING" for job in jobs if job.executor == "local" and _supervisor(job)}
    if any(job.executor == "slurm" for job in jobs):
        # by names, which are unique: a submission may have been killed before it kept the number
        for line in slurm(["squeue", "--noheader", "--me", "--format=%j %T"]).splitlines():
            name, _, state = line.rpartition(" ")
            states[name] = state
    return states


def slurm(command: list[str]) -> str:
    """What one of SLURM's commands prints.

    Raises:
        InputError: it is not there, or SLURM does not answer.
    """
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    except FileNotFoundError as error:
        raise InputError(f"This machine has no {command[0]}: ask where the job was submitted.") from error
    except subprocess.TimeoutExpired as error:
        raise InputError(f"SLURM did not answer {command[0]} within a minute; try again later.") from error
    if result.returncode:
        reason = " ".join(result.stderr.split())
        raise InputError(f"SLURM did not answer {command[0]}: {reason}. Try again later.")
    return result.stdout


def last_words(path: Path) -> str:
    """The last line of a file that says something."""
    try:
        lines = path.read_text(errors="replace").split("\n")
    except OSError:
        return "nothing was written"
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing was written")


def _supervisor(job: Job) -> int | None:
    """The process that supervises a job of this machine; none where the number is a later process's."""
    folder = job.folder / SCHEDULER
    try:
        number = (folder / "id").read_text()  # also where the submission was killed before it kept it
        arguments = psutil.Process(int(number)).cmdline()
    except (OSError, ValueError, psutil.Error):
        return None
    return int(number) if str(folder) in arguments else None
