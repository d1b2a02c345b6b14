"""Pretrainings to be killed: real ones, of a network of one narrow block, in processes of their own.

Ranks are started by torchrun's own agent. Agent and ranks are forked from a process that has imported torch,
which saves most of the seconds that such a job takes; nothing else differs from the command line.
"""

import ctypes
import faulthandler
import hashlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer
from small import network, random_windows
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from meduet_training.data.sources.windows import WindowSource
from meduet_training.engine.callbacks import NullCallback, StepRecord
from meduet_training.engine.checkpoints import newest_checkpoint
from meduet_training.engine.config import TrainerOptions, TrainingConfig
from meduet_training.engine.run_lock import run_lock
from meduet_training.engine.trainer import Trainer
from meduet_training.runtime.fabric import Hardware, launch_fabric
from meduet_training.runtime.messages import exit_with_message
from meduet_training.tasks.pretraining.presets import with_domains_of
from napari_meduet.core.objective import ObjectiveConfig

FORK = multiprocessing.get_context("fork")
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
PATIENCE_S = 60.0  # of the tests, on a busy machine
Disturb = Callable[["Job", int, dict[str, Any]], None]


class Told(NullCallback):
    """Writes every step and its loss, to the last bit, to a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def on_step(self, record: StepRecord) -> None:
        self._file.write(f"{record.step} {record.losses['total'].item().hex()}\n")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One attempt after another at the same run.

    Attributes:
        pace_s: that a step takes longer, so that a fault can be aimed.
        disturb: is called on every rank before it trains, with its number and what the run is given.
    """

    folder: Path
    steps: int = 12
    ranks: int = 2
    batch: int = 4
    accumulate: int = 1
    checkpoint_every: int = 4
    keep: int = 3
    timeout_s: float = 60.0
    workers: int = 0
    pace_s: float = 0.0
    disturb: Disturb | None = None
    environment: tuple[tuple[str, str], ...] = ()  # of a rank that is started without a launcher

    @property
    def notes(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}-notes")

    def note(self, name: str) -> str:
        path = self.notes / name
        return path.read_text() if path.exists() else ""

    @property
    def losses(self) -> dict[int, str]:
        """The loss of each step, the last time it was taken."""
        rows = [line.split() for line in self.note("steps").splitlines()]
        return {int(row[0]): row[1] for row in rows if len(row) == 2}

    def digest(self) -> str:
        """Of all that the newest checkpoint holds."""
        checkpoint = newest_checkpoint(self.folder)
        assert checkpoint is not None
        digest = hashlib.sha256(str(checkpoint.step).encode())
        for name, value in sorted(checkpoint.tensors.items()):
            digest.update(name.encode() + value.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def start(self) -> "Attempt":
        return Attempt(self)


class Attempt:
    """A job that runs."""

    def __init__(self, job: Job) -> None:
        self.job = job
        job.notes.mkdir(parents=True, exist_ok=True)
        for name in (*(f"pid-{rank}" for rank in range(job.ranks)), "said"):
            (job.notes / name).unlink(missing_ok=True)
        for rank in range(job.ranks):
            (job.notes / f"exit-{rank}").unlink(missing_ok=True)
        self.taken = len(job.note("steps").splitlines())
        self.process = FORK.Process(target=_launch, args=(job,))
        self.process.start()
        self.began = time.monotonic()

    @property
    def pids(self) -> list[int]:
        return [int(self.job.note(f"pid-{rank}") or 0) for rank in range(self.job.ranks)]

    @property
    def said(self) -> str:
        return " ".join(self.job.note("said").split())

    def wait_for(self, condition: Callable[[], object], within_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain; it said: {self.said[-2000:]}"
            time.sleep(0.005)

    def wait_for_steps(self, count: int) -> None:
        """Until this attempt has taken so many steps, or is over."""
        self.wait_for(
            lambda: (
                len(self.job.note("steps").splitlines()) >= self.taken + count or not self.process.is_alive()
            )
        )

    def kill(self, number: int = signal.SIGKILL) -> None:
        """The launcher and all ranks at once, as a machine that goes down."""
        for pid in (self.process.pid, *self.pids):
            send(pid, number)
        self.process.join()
        self.wait_for(lambda: not any(is_running(pid) for pid in self.pids if pid))

    def end(self, within_s: float = PATIENCE_S) -> list[str]:
        """Wait until all of it is over; the exit code of each rank, empty for one that was killed."""
        self.wait_for(lambda: not self.process.is_alive(), within_s)
        self.process.join()
        self.wait_for(lambda: not any(is_running(pid) for pid in self.pids if pid), within_s)
        return [self.job.note(f"exit-{rank}") for rank in range(self.job.ranks)]

    def clean_up(self) -> None:
        for pid in self.pids:
            if pid and is_running(pid):
                send(pid, signal.SIGCONT)
        self.kill()


def send(pid: int | None, number: int) -> None:
    if pid:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _launch(job: Job) -> None:
    said = os.open(job.notes / "said", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stdout = sys.stderr = os.fdopen(said, "w", buffering=1)
    faulthandler.enable()
    os.environ.update(job.environment)
    if job.ranks == 1:
        _rank(job)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=job.ranks,
        run_id=str(os.getpid()),
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=0.1,
        start_method="fork",
    )
    try:
        elastic_launch(config, _rank)(job)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _rank(job: Job) -> None:
    rank = int(os.environ.get("RANK", 0))
    (job.notes / f"pid-{rank}").write_text(str(os.getpid()))
    torch.set_num_threads(1)
    # A forked rank gets SIGINT when its launcher dies; one that torchrun starts by a command gets nothing.
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, 0)
    code = 1
    try:
        _train(job, rank)
        code = 0
    except typer.Exit as end:
        code = end.exit_code
    except BaseException:
        traceback.print_exc()
    (job.notes / f"exit-{rank}").write_text(str(code))
    sys.stderr.flush()
    if code or job.ranks == 1:
        os._exit(code)


def _train(job: Job, rank: int) -> None:
    with exit_with_message():
        hardware = Hardware(
            device="cpu", workers=job.workers, timeout_s=job.timeout_s, accumulate=job.accumulate
        )
        fabric = launch_fabric(hardware)
        source = WindowSource(random_windows(), seed=1)
        objective = ObjectiveConfig.corrected(
            total_steps=job.steps, pairing="cross_domain", distillation_start=0.5, aligned_weight=1.0
        )
        training = with_domains_of(
            TrainingConfig(network=network(), objective=objective, batch=job.batch, learning_rate=1e-3),
            source,
        )
        given: dict[str, Any] = {"source": source, "training": training, "fabric": fabric}
        read = source.read

        def paced_read(choices: Any) -> Any:
            time.sleep(job.pace_s)
            return read(choices)

        source.read = paced_read  # type: ignore[method-assign]
        if job.disturb:
            job.disturb(job, rank, given)
        with run_lock(fabric, job.folder, job.timeout_s) as guard:
            Trainer(
                fabric,
                given["training"],
                given["source"],
                job.folder,
                hardware=hardware,
                options=TrainerOptions(checkpoint_every=job.checkpoint_every, keep=job.keep, skips=2),
                callback=Told(job.notes / "steps"),
                should_stop=guard.should_stop,
                report_stage=guard.watchdog.report_stage,
            ).fit()
