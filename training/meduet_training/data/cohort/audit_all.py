"""All scans of a cohort audited, over several processes; what was finished is kept at every moment."""

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from meduet_training.data.cohort.audit import Audit, Found
from meduet_training.data.cohort.audit_log import AuditLog
from meduet_training.data.cohort.candidates import Candidate
from napari_meduet.errors import InputError

AHEAD = 4  # scans handed to each process before it asks for them


def audit_all(
    candidates: list[Candidate],
    audit: Audit,
    log: AuditLog,
    workers: int,
    on_done: Callable[[], None],
) -> list[list[Found]]:
    """What was found at each candidate's path, in their order.

    Raises:
        InputError: the log cannot be written, or the system ended a process.
    """
    results = {number: log.found_before(candidate) for number, candidate in enumerate(candidates)}
    missing = [number for number, found in results.items() if found is None]
    for _ in range(len(candidates) - len(missing)):
        on_done()
    for number, found in _audited(missing, candidates, audit, workers):
        log.keep(candidates[number], found)
        results[number] = found
        on_done()
    return [results[number] or [] for number in range(len(candidates))]


def _audited(
    numbers: list[int], candidates: list[Candidate], audit: Audit, workers: int
) -> Iterator[tuple[int, list[Found]]]:
    """Each number with what was found there, as it is finished."""
    if workers == 1 or len(numbers) < 2:
        yield from ((number, audit(candidates[number])) for number in numbers)
        return
    pool = ProcessPoolExecutor(
        min(workers, len(numbers)),
        mp_context=multiprocessing.get_context("spawn"),  # a fork would copy the locks of running threads
        initializer=_leave_interrupts_to_the_parent,
    )
    try:
        yield from _in_flight(pool, numbers, candidates, audit, workers * AHEAD)
    except BrokenProcessPool as error:
        raise InputError(
            "The system ended a process of the audit, most likely for lack of memory; run it again with "
            "fewer --workers: what was audited so far is kept."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_flight(
    pool: ProcessPoolExecutor,
    numbers: Iterable[int],
    candidates: list[Candidate],
    audit: Audit,
    most: int,
) -> Iterator[tuple[int, list[Found]]]:
    left, running = iter(numbers), {}
    while True:
        while len(running) < most and (number := next(left, None)) is not None:
            running[pool.submit(audit, candidates[number])] = number
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield running.pop(future), future.result()


def _leave_interrupts_to_the_parent() -> None:
    """Ctrl-C reaches every process of a terminal; the parent alone decides what becomes of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
