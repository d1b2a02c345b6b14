"""`python -m meduet_training.jobs.run_attempt FOLDER`: run one attempt of a job on its node.

This program starts the processes of the training and records how they ended. If a signal stopped the
training before its end, the program requeues the job: with SLURM's requeue, or with the exit code at which
submitit's supervisor restarts a local job.
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO

from meduet_training.jobs.executors import LOCAL_REQUEUE
from meduet_training.jobs.launcher import launch_ranks
from meduet_training.jobs.store import (
    AttemptRecord,
    Job,
    Outcome,
    add_attempt,
    now,
    read_attempts,
    read_job_folder,
)
from meduet_training.runtime.signals import EXIT_RESUMABLE

# With the last two exit codes, the signal came before the training had installed its handlers.
RESUMABLE = {EXIT_RESUMABLE, 128 + signal.SIGTERM, 128 + signal.SIGUSR1}
MAX_FUTILE_ATTEMPTS = 3  # consecutive attempts without a new checkpoint; another would not help
LAST_RANKS_SECONDS = 30  # srun waits this long for the other ranks after one has ended


def main(folder: Path) -> int:
    """Run the job once, and return the exit code for the executor."""
    os.umask(0o077)
    job = read_job_folder(folder)
    os.chdir(job.directory)
    host = socket.gethostname()
    add_attempt(folder, AttemptRecord(time=now(), host=host))
    with job.log.open("ab") as log:
        number = sum(record.outcome is None for record in read_attempts(folder))
        log.write(f"== attempt {number} on {host}, {now()}\n".encode())
        log.flush()
        code = _run(job, log)
        end = end_record(job, code)
        log.write(f"== {end.outcome}: {end.reason}\n".encode())
    add_attempt(folder, end)
    if end.outcome != "requeued":
        return 0 if end.outcome == "cancelled" else code
    if job.executor == "local":
        return LOCAL_REQUEUE
    subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)  # noqa: S603, S607
    return 0


def end_record(job: Job, code: int) -> AttemptRecord:
    """Return the record for the end of an attempt, which classifies its exit code."""
    newest = newest_checkpoint(job.folder)
    earlier = [record.checkpoint for record in read_attempts(job.folder) if record.outcome]
    last_checkpoints = [newest, *earlier[:-MAX_FUTILE_ATTEMPTS:-1]]
    is_futile = len(last_checkpoints) == MAX_FUTILE_ATTEMPTS and len(set(last_checkpoints)) == 1
    outcome: Outcome = "failed"
    reason = f"the training ended with exit code {code}. See the log."
    if code == 0:
        outcome, reason = "finished", "the run is complete."
    elif job.is_cancelled:
        outcome, reason = "cancelled", "the user cancelled it. `jobs resume` continues it."
    elif code in RESUMABLE and is_futile:
        reason = (
            f"it was stopped {MAX_FUTILE_ATTEMPTS} times without a new checkpoint. Give an attempt more time."
        )
    elif code in RESUMABLE:
        outcome, reason = "requeued", "a signal stopped it. It continues automatically."
    return AttemptRecord(
        time=now(),
        host=socket.gethostname(),
        outcome=outcome,
        exit_code=code,
        reason=reason,
        checkpoint=newest,
    )


def newest_checkpoint(folder: Path) -> str:
    """Return the file name of the newest checkpoint, or an empty text if there is none."""
    return max((path.name for path in folder.glob("checkpoints/step-*.safetensors")), default="")


def _run(job: Job, log: IO[bytes]) -> int:
    """Run the processes of the job, and return their exit code."""
    if job.executor == "local":
        return launch_ranks(job.command, job.resources.processes_per_node, log)
    # SLURM signals the processes on every node. This process ignores the signals and waits for srun.
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: None)
    step = ["srun", "--unbuffered", "--kill-on-bad-exit=0", f"--wait={LAST_RANKS_SECONDS}"]
    if processors := os.environ.get("SLURM_CPUS_PER_TASK"):  # recent versions of srun do not read it
        step.append(f"--cpus-per-task={processors}")
    return subprocess.run(  # noqa: S603 the job's own command
        [*step, *job.command], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
