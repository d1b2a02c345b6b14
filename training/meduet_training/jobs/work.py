"""`python -m meduet_training.jobs.work FOLDER`: one attempt at a job, on the node where it runs.

Starts the job's processes, writes down how they ended, and sees to it that a training which was stopped in
the middle is started again: by SLURM's requeue, or by submitit's supervisor on a plain machine.
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO

from meduet_training.jobs.executors import LOCAL_REQUEUE
from meduet_training.jobs.ranks import run_ranks
from meduet_training.jobs.record import Attempt, Job, add_attempt, now, read_attempts, read_job_folder

SAVED = 75  # EX_TEMPFAIL: saved, and may go on
RESUMABLE = {SAVED, 128 + signal.SIGTERM, 128 + signal.SIGUSR1}  # the last two: before it could listen
FUTILE_ATTEMPTS = 3  # one after another without a new checkpoint: the next would be another
LAST_RANKS_SECONDS = 30  # that srun waits for the others once one has ended


def main(folder: Path) -> int:
    """Run the job once; returns what the executor shall be told."""
    os.umask(0o077)
    job = read_job_folder(folder)
    os.chdir(job.directory)
    host = socket.gethostname()
    add_attempt(folder, Attempt(time=now(), host=host))
    with job.log.open("ab") as log:
        number = sum(row.outcome is None for row in read_attempts(folder))
        log.write(f"== attempt {number} on {host}, {now()}\n".encode())
        log.flush()
        code = _run(job, log)
        end = judge(job, code)
        log.write(f"== {end.outcome}: {end.reason}\n".encode())
    add_attempt(folder, end)
    if end.outcome != "requeued":
        return 0 if end.outcome == "cancelled" else code
    if job.executor == "local":
        return LOCAL_REQUEUE
    subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)  # noqa: S603, S607
    return 0


def judge(job: Job, code: int) -> Attempt:
    """What the exit code means for the job."""
    newest = newest_checkpoint(job.folder)
    before = [row.checkpoint for row in read_attempts(job.folder) if row.outcome]
    futile = [newest, *before[:-FUTILE_ATTEMPTS:-1]]
    outcome, reason = "failed", f"its processes ended with exit code {code}; the log says why."
    if code == 0:
        outcome, reason = "finished", "the run is complete."
    elif job.is_cancelled:
        outcome, reason = "cancelled", "as asked for; `jobs resume` goes on with it."
    elif code in RESUMABLE and len(futile) == FUTILE_ATTEMPTS and len(set(futile)) == 1:
        reason = (
            f"stopped {FUTILE_ATTEMPTS} times without a new checkpoint; it needs more time for an attempt."
        )
    elif code in RESUMABLE:
        outcome, reason = "requeued", "stopped by a signal; it goes on by itself."
    return Attempt.model_validate(
        {
            "time": now(), "host": socket.gethostname(), "outcome": outcome, "exit_code": code,
            "reason": reason, "checkpoint": newest,
        }
    )  # fmt: skip


def newest_checkpoint(folder: Path) -> str:
    """Its name, or nothing."""
    return max((path.name for path in folder.glob("checkpoints/step-*.safetensors")), default="")


def _run(job: Job, log: IO[bytes]) -> int:
    if job.executor == "local":
        return run_ranks(job.command, job.resources.processes_per_node, log)
    # SLURM signals the processes itself, on every node; this one waits for how they end.
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: None)
    step = ["srun", "--unbuffered", "--kill-on-bad-exit=0", f"--wait={LAST_RANKS_SECONDS}"]
    if processors := os.environ.get("SLURM_CPUS_PER_TASK"):  # which srun no longer takes over by itself
        step.append(f"--cpus-per-task={processors}")
    return subprocess.run(  # noqa: S603 the job's own command
        [*step, *job.command], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
