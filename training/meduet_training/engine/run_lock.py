"""What stands around a run while it trains: its folder's lock, signals, and a look at the other ranks."""

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
    """What a training is told and tells.

    Attributes:
        is_stopped: whether a signal asked this process to stop.
        watchdog: receives the step and stage of the training.
    """

    is_stopped: StopSignals
    watchdog: Watchdog


@contextmanager
def run_lock(fabric: Fabric, folder: Path, timeout_s: float) -> Iterator[RunLock]:
    """Guard a run on all its processes; its folder is held by the first.

    Args:
        timeout_s: that a rank may be silent, or wait for the others.

    Raises:
        InputError: another run is at work in the folder, or it cannot be written to.
        WorkerDied: torch's handler of SIGCHLD found a dead worker; it raises wherever the program is.
    """
    with (
        worker_deaths_told(),
        stop_signals() as is_stopped,
        watch_ranks(is_stopped, timeout_s) as watchdog,
        ExitStack() as held,
    ):
        if fabric.is_global_zero:
            make_folder(folder)
            held.enter_context(lock_folder(folder))
            remove_leftovers(folder)
        try:
            yield RunLock(is_stopped=is_stopped, watchdog=watchdog)
        except Stopped as stopped:
            stopped.exit_code = is_stopped.exit_code
            raise
