"""The state of a job, from the attempt records in its folder and from the scheduler."""

from typing import Any, Literal

from pydantic import BaseModel

from meduet_training.jobs.executors import last_line, scheduler_states
from meduet_training.jobs.store import SCHEDULER, AttemptRecord, Job, last_metrics, read_attempts

# queued: submitted, or stopped and waiting for the next attempt.
# lost: the scheduler no longer knows the job, and the job has not recorded how it ended.
State = Literal["queued", "running", "finished", "failed", "cancelled", "lost"]


class Status(BaseModel):
    """The current status of a job.

    Attributes:
        attempts: number of times that the job was started.
        reason: why the job, or its last attempt, ended.
        metrics: last row of the run's `log.jsonl`.
    """

    job: str
    state: State
    executor: str
    scheduler_id: str | None
    submitted: str
    attempts: int
    reason: str
    exit_code: int | None
    metrics: dict[str, Any] | None
    folder: str

    @property
    def is_over(self) -> bool:
        return self.state not in ("queued", "running")


def status(job: Job) -> Status:
    """Return the status of one job."""
    return statuses([job])[0]


def statuses(jobs: list[Job]) -> list[Status]:
    """Return the statuses of several jobs, with a single call of the scheduler."""
    known = scheduler_states([job for job in jobs if not has_ended(job)])
    # The records are read after the scheduler: a job that it no longer knows has written its last record.
    return [_status(job, known.get(job.job)) for job in jobs]


def has_ended(job: Job) -> bool:
    """Return whether the job has recorded that it ended."""
    last = _last_record(job, read_attempts(job.folder))
    return last is not None and last.outcome not in (None, "requeued")


def _last_record(job: Job, records: list[AttemptRecord]) -> AttemptRecord | None:
    """Return the last record since the job was submitted or resumed."""
    return records[-1] if len(records) > job.rows_before else None


def _status(job: Job, scheduler_state: str | None) -> Status:
    records = read_attempts(job.folder)
    last = _last_record(job, records)
    state, reason = _state(job, last, scheduler_state)
    return Status(
        job=job.job,
        state=state,
        executor=job.executor,
        scheduler_id=job.scheduler_id,
        submitted=job.submitted,
        attempts=sum(record.outcome is None for record in records),
        reason=reason,
        exit_code=last.exit_code if last else None,
        metrics=last_metrics(job.folder),
        folder=str(job.folder),
    )


def _state(job: Job, last: AttemptRecord | None, scheduler_state: str | None) -> tuple[State, str]:
    """Return the state of a job and the reason for it."""
    if last and last.outcome is not None and last.outcome != "requeued":
        return last.outcome, last.reason
    if scheduler_state:
        is_started = last is not None and last.outcome is None and scheduler_state != "PENDING"
        return "running" if is_started else "queued", last.reason if last else ""
    if job.is_cancelled:
        return "cancelled", "the user cancelled it."
    if last is None:
        logs = sorted((job.folder / SCHEDULER).glob("*_0_log.out"))
        line = last_line(logs[-1]) if logs else ""
        return "lost", f"it never started. The last line of the scheduler's log: {line or 'none'}"
    return (
        "lost",
        "it was killed, or its machine went down. `jobs resume` continues from the last checkpoint.",
    )
