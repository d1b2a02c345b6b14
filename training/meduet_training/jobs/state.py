"""What state a job is in: what its own rows say, and whether its executor still knows it."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from meduet_training.jobs.executors import last_words, scheduler_states
from meduet_training.jobs.record import SCHEDULER, Attempt, Job, last_metrics, read_attempts

ENDS = ("finished", "failed", "cancelled")


class State(StrEnum):
    queued = "queued"  # submitted, or stopped and waiting to go on
    running = "running"
    finished = "finished"
    failed = "failed"
    cancelled = "cancelled"
    lost = "lost"  # its executor knows it no longer, and it left no last word

    @property
    def is_over(self) -> bool:
        return self not in (State.queued, State.running)


class Status(BaseModel):
    """A job as it is now.

    Attributes:
        attempts: how often it was started.
        reason: of its end, or of its last stop.
        metrics: the last row of the run's log.
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


def status(job: Job) -> Status:
    """The state of one job."""
    return statuses([job])[0]


def statuses(jobs: list[Job]) -> list[Status]:
    """The states of many jobs, for one question to the executor."""
    known = scheduler_states([job for job in jobs if not has_ended(job)])
    # only now its rows: whoever the executor no longer knows has written the last one
    return [_status(job, known.get(job.job)) for job in jobs]


def has_ended(job: Job) -> bool:
    """Whether the job said so itself."""
    last = _last(job, read_attempts(job.folder))
    return last is not None and last.outcome in ENDS


def _last(job: Job, rows: list[Attempt]) -> Attempt | None:
    """The last row since it was submitted or resumed."""
    return rows[-1] if len(rows) > job.rows_before else None


def _status(job: Job, known: str | None) -> Status:
    rows = read_attempts(job.folder)
    last = _last(job, rows)
    state, reason = _state(job, last, known)
    return Status(
        job=job.job,
        state=state,
        executor=job.executor,
        scheduler_id=job.scheduler_id,
        submitted=job.submitted,
        attempts=sum(row.outcome is None for row in rows),
        reason=reason,
        exit_code=last.exit_code if last else None,
        metrics=last_metrics(job.folder),
        folder=str(job.folder),
    )


def _state(job: Job, last: Attempt | None, known: str | None) -> tuple[State, str]:
    if last and last.outcome in ENDS:
        return State(last.outcome), last.reason
    if known:
        started = last is not None and last.outcome is None
        return (
            State.running if started and known != "PENDING" else State.queued
        ), last.reason if last else ""
    if job.is_cancelled:
        return State.cancelled, "as asked for."
    if last is None:
        logs = sorted((job.folder / SCHEDULER).glob("*_0_log.out"))
        words = last_words(logs[-1]) if logs else "nothing was written"
        return State.lost, f"it never started; its last words: {words}."
    return (
        State.lost,
        "it was killed or its machine went down; `jobs resume` goes on from its last checkpoint.",
    )
