"""Submit a job to SLURM or to this machine, with submitit.

submitit usually pickles a function, which the job loads. Its executors also accept a plain command. This
file gives them only commands, so nothing is pickled or unpickled (docs/decisions/0009-jobs.md).
submission.py checks the job before; run_attempt.py is the command that runs on the node.
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

from meduet_training.jobs.hardware import find_gpus
from meduet_training.jobs.store import SCHEDULER, Job
from napari_meduet.errors import InputError

SAVE_BEFORE_SECONDS = 120  # from SLURM's warning to its time limit, for a checkpoint on a slow disk
LOCAL_REQUEUE = 144  # exit code at which submitit's local executor restarts a job, up to five times
SUPERVISOR_LOG = "supervisor.log"


def has_slurm() -> bool:
    """Return whether this machine can submit to SLURM."""
    return shutil.which("sbatch") is not None


def submit_to_executor(job: Job) -> str:
    """Submit a job to its executor, and return the executor's number for it.

    Raises:
        InputError: the executor does not accept the job.
    """
    command = shlex.join([sys.executable, "-m", "meduet_training.jobs.run_attempt", str(job.folder)])
    return _submit_to_slurm(job, command) if job.executor == "slurm" else _start_locally(job, command)


def _submit_to_slurm(job: Job, command: str) -> str:
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    resources = job.resources
    executor = SlurmExecutor(folder=job.folder / SCHEDULER)
    executor.folder.mkdir(exist_ok=True)
    executor.update_parameters(
        job_name=job.job,
        nodes=resources.nodes,
        ntasks_per_node=resources.processes_per_node,
        gpus_per_node=resources.gpus or None,
        time=math.ceil(resources.hours * 60) if resources.hours else None,
        partition=resources.partition,
        stderr_to_stdout=True,
        use_srun=False,  # run_attempt.py calls srun itself, because it needs the exit code
        additional_parameters={"requeue": True, "signal": f"USR1@{SAVE_BEFORE_SECONDS}"} | resources.sbatch,
    )
    try:
        return executor._submit_command(f"exec {command}").job_id
    except (FailedJobError, FailedSubmissionError) as error:
        reason = next(reversed(str(error).strip().splitlines()), "no reason given")
        raise InputError(
            f"SLURM did not accept the job: {reason}. To train on this machine, use `--executor local`."
        ) from error


def _start_locally(job: Job, command: str) -> str:
    folder = job.folder / SCHEDULER
    folder.mkdir(exist_ok=True)
    starter = [sys.executable, "-m", "meduet_training.jobs.start_local", str(folder), command]
    with (folder / SUPERVISOR_LOG).open("a") as log:
        # Own streams and an own session let the job outlive the login that submitted it.
        started = subprocess.run(  # noqa: S603 our own program
            [*starter, *map(str, job.local_gpus)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            check=False,
        )
    if started.returncode:
        reason = last_line(folder / SUPERVISOR_LOG) or "no reason given"
        raise InputError(f"The job could not be started on this machine: {reason}")
    return (folder / "id").read_text().strip()


def choose_gpus(num_gpus: int, busy: set[int]) -> tuple[int, ...]:
    """Return the indices of GPUs that no job uses, those with most free memory first.

    Args:
        busy: indices of the GPUs that other jobs use.

    Raises:
        InputError: this machine has too few GPUs, or too few of them are free.
    """
    if not num_gpus:
        return ()
    gpus = find_gpus()
    free = [gpu for gpu in gpus if gpu.index not in busy]
    if len(gpus) < num_gpus:
        raise InputError(f"--gpus is {num_gpus}, but this machine has {len(gpus)} GPUs. Change --gpus.")
    if len(free) < num_gpus:
        raise InputError(
            f"--gpus is {num_gpus}, but other jobs use {len(gpus) - len(free)} of the {len(gpus)} GPUs of "
            "this machine. Wait until they end (`jobs list`), or request fewer."
        )
    return tuple(gpu.index for gpu in sorted(free, key=lambda gpu: -gpu.free_gib)[:num_gpus])


def send_stop_signal(job: Job) -> None:
    """Signal a job to save a checkpoint and to end."""
    if job.executor == "slurm":
        run_slurm_command(["scancel", "--me", f"--name={job.job}"])
    elif supervisor := _supervisor_id(job):
        os.kill(supervisor, signal.SIGTERM)


def scheduler_states(jobs: list[Job]) -> dict[str, str]:
    """Return the scheduler's state of each job that it still knows, such as `PENDING` or `RUNNING`."""
    states = {job.job: "RUNNING" for job in jobs if job.executor == "local" and _supervisor_id(job)}
    if any(job.executor == "slurm" for job in jobs):
        # Job names are unique. The number is not used, because a killed submission may not have stored it.
        listing = run_slurm_command(["squeue", "--noheader", "--me", "--format=%j %T"])
        for line in listing.splitlines():
            name, _, state = line.rpartition(" ")
            states[name] = state
    return states


def run_slurm_command(command: list[str]) -> str:
    """Return the output of a SLURM command.

    Raises:
        InputError: the command is not installed, fails, or does not answer within a minute.
    """
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    except FileNotFoundError as error:
        raise InputError(
            f"This machine has no {command[0]}. Run this command on the machine where the job was submitted."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise InputError(f"SLURM did not answer {command[0]} within a minute. Try again later.") from error
    if result.returncode:
        reason = " ".join(result.stderr.split())
        raise InputError(f"SLURM refused {command[0]}: {reason}. Try again later.")
    return result.stdout


def last_line(path: Path) -> str:
    """Return the last line of a text file that is not blank, or an empty text if there is none."""
    try:
        lines = path.read_text(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _supervisor_id(job: Job) -> int | None:
    """Return the process id of a local job's supervisor, or None if it has ended.

    The number may since belong to another process, so the command line is checked too.
    """
    folder = job.folder / SCHEDULER
    try:
        number = (folder / "id").read_text()  # present even if the submission was killed before it stored it
        arguments = psutil.Process(int(number)).cmdline()
    except (OSError, ValueError, psutil.Error):
        return None
    return int(number) if str(folder) in arguments else None
