"""Batches read ahead of the training, by processes of their own, in pinned memory.

A batch is the same whoever reads it (step_batches.py), so nothing needs to be saved of a loader, and a run
goes on at any step.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from meduet_training.data.sources.step_batches import StepBatches
from meduet_training.runtime.messages import TrainingFailed
from meduet_training.runtime.retry import retry_storage
from meduet_training.runtime.shared_memory import check_shared_memory
from napari_meduet.core.objective import Batch
from napari_meduet.errors import InputError

AHEAD = 4  # batches that each worker holds ready


class WorkerDied(TrainingFailed):
    """A process that read data is no more. The message says how to go on."""


class Loading:
    """Gives the batches of a run in order, and counts the seconds that the training waited for them."""

    def __init__(self, batches: StepBatches, *, first_step: int, workers: int, pin: bool) -> None:
        first = first_step * batches.share.accumulate
        if workers and first < len(batches):
            held = sum(value.nbytes for value in batches[first].values() if isinstance(value, Tensor))
            check_shared_memory(workers * AHEAD * held)
        loader = DataLoader(
            _Told(batches),
            batch_size=None,  # an item is a whole batch already
            sampler=range(first, len(batches)),
            num_workers=workers,
            prefetch_factor=AHEAD if workers else None,
            pin_memory=pin,
            worker_init_fn=_leave_signals_alone,
            generator=torch.Generator(),  # its own: iterating must not move the training's random numbers
        )
        self._batches: Iterator[Batch | InputError] = iter(loader)
        self._workers = workers
        self.waited = 0.0

    def next(self) -> Batch:
        """The next batch.

        Raises:
            InputError: its data could not be read; said by the source.
            WorkerDied: a worker was killed, perhaps for want of memory.
        """
        began = time.monotonic()
        try:
            with worker_deaths_told():
                batch = next(self._batches)
        except (EOFError, ConnectionError, FileNotFoundError) as error:
            if not self._workers:
                raise
            raise _worker_died(error) from error  # killed while it handed a batch over
        self.waited += time.monotonic() - began
        if isinstance(batch, InputError):
            raise batch
        return batch

    def close(self) -> None:
        """End the workers. Python would wait for them at its exit, and they heed no signal."""
        self._batches = iter(())


@contextmanager
def worker_deaths_told() -> Iterator[None]:
    """Turn what torch raises when a worker is gone into what is said of it.

    Raises:
        WorkerDied: a worker was killed.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise _worker_died(error) from error


def _worker_died(error: Exception) -> WorkerDied:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return WorkerDied(
        f"A process that reads data died ({reason}). Memory or /dev/shm may have run out: fewer "
        "hardware.workers need less. The same command goes on from the newest checkpoint."
    )


def _leave_signals_alone(worker: int) -> None:
    """Schedulers signal every process of a job; workers go on, so that the training can finish its step."""
    for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


class _Told(Dataset[Batch | InputError]):
    """Hands out what is wrong with data as an item: raised in a worker, it would come out as a traceback."""

    def __init__(self, batches: StepBatches) -> None:
        self.batches = batches

    def __getitem__(self, index: int) -> Batch | InputError:
        try:
            return retry_storage(lambda: self.batches[index])
        except InputError as error:
            return error
        except OSError as error:
            return InputError(
                f"{error.filename or 'The data'}: cannot be read ({error.strerror}), tried several times; "
                "the same command goes on from the newest checkpoint."
            )
