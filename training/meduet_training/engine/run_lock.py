"""Everything that protects a run while it trains: the lock of its folder, signals, and the watchdog."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lightning_fabric import Fabric

from meduet_training.data.sources.prefetching import worker_deaths_told
from meduet_training.engine.checkpoints import remove_leftovers
from meduet_training.runtime.folders import make_folder
from meduet_training.runtime.locks import lock_folder
from meduet_training.runtime.signals import Stopped, StopSignals, stop_signals
from meduet_training.runtime.watchdog import Watchdog, watch_ranks


@dataclass(frozen=True, kw_only=True)
class RunLock:
    """What `run_lock` gives to the trainer.

    Attributes:
        should_stop: returns whether a signal asked this process to stop.
        watchdog: receives the step and the stage of the training.
    """

    should_stop: StopSignals
    watchdog: Watchdog


@contextmanager
def run_lock(fabric: Fabric, folder: Path, timeout_s: float) -> Iterator[RunLock]:
    """Lock the folder of a run on rank zero, and handle signals and hanging processes on all ranks.

    Args:
        timeout_s: seconds that a rank may give no sign of life, or wait for the others.

    Raises:
        InputError: another run uses the folder, or the folder cannot be written.
        WorkerDied: a data loading process died. Torch raises this from a signal handler, at any line.
    """
    with (
        worker_deaths_told(),
        stop_signals() as should_stop,
        watch_ranks(should_stop, timeout_s) as watchdog,
        ExitStack() as locks,
    ):
        if fabric.is_global_zero:
            make_folder(folder)
            locks.enter_context(lock_folder(folder))
            remove_leftovers(folder)
        try:
            yield RunLock(should_stop=should_stop, watchdog=watchdog)
        except Stopped as stopped:
            stopped.exit_code = should_stop.exit_code
            raise
