"""Waiting for what becomes of a job."""

import time
from collections.abc import Callable

from meduet_training.jobs.record import Job
from meduet_training.jobs.state import State, Status, status

PATIENCE_SECONDS = 60


def wait_until(job: Job, is_so: Callable[[Status], bool], seconds: float = PATIENCE_SECONDS) -> Status:
    """Wait for a state of the job."""
    deadline = time.monotonic() + seconds
    while not is_so(found := status(job)):
        log = job.log.read_text() if job.log.exists() else "no log"
        assert time.monotonic() < deadline, f"{found}\n{log}"
        time.sleep(0.1)
    return found


def wait_for_step(job: Job, step: int) -> Status:
    return wait_until(
        job, lambda found: found.state is State.running and (found.metrics or {}).get("step", -1) >= step
    )
