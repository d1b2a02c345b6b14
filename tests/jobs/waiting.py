"""Wait until a job has reached a state or a step."""

import time
from collections.abc import Callable

from meduet_training.jobs.state import Status, status
from meduet_training.jobs.store import Job

PATIENCE_SECONDS = 60


def wait_until(job: Job, condition: Callable[[Status], bool], seconds: float = PATIENCE_SECONDS) -> Status:
    """Wait until a condition on the status holds, and return the status."""
    deadline = time.monotonic() + seconds
    while not condition(found := status(job)):
        log = job.log.read_text() if job.log.exists() else "no log"
        assert time.monotonic() < deadline, f"{found}\n{log}"
        time.sleep(0.1)
    return found


def wait_for_step(job: Job, step: int) -> Status:
    return wait_until(
        job, lambda found: found.state == "running" and (found.metrics or {}).get("step", -1) >= step
    )
