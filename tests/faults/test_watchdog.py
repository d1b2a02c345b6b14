"""Ranks that are killed, that hang, or whose launcher is gone: the job ends and says who (T2, T3, T4, T5)."""

import multiprocessing
import os
import signal
import socket
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from meduet_training.runtime import watchdog as supervision
from meduet_training.runtime.heartbeat import COMPUTING
from meduet_training.runtime.messages import exit_with_message
from meduet_training.runtime.signals import EXIT_RESUMABLE, Stopped, stop_signals
from meduet_training.runtime.watchdog import EXIT_LOST, watch_ranks
from napari_meduet.errors import InputError

FORK = multiprocessing.get_context("fork")
TIMEOUT_S = 3.0
STEP_S = 0.05
SETTLED = 50  # steps, after which each rank has heard of the other


def train(rank: int, port: int, folder: Path, world: int, fail: str, timeout_s: float) -> None:
    """Steps with a collective each, as a training's; what is said goes to a file of the rank."""
    torch.set_num_threads(1)
    sys.stderr = (folder / f"said-{rank}").open("w", buffering=1)
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=timeout_s),
    )
    with exit_with_message(), stop_signals() as stopping, watch_ranks(stopping, timeout_s) as watchdog:
        for step in range(100_000):
            watchdog.report_stage(step, "reading")
            time.sleep(STEP_S)
            if fail == "input" and rank == 1 and step == 2:
                raise InputError("The disk is full.")
            if fail == "read" and rank == 1 and step == 2:
                time.sleep(600)
            watchdog.report_stage(step, COMPUTING)
            votes = torch.tensor([float(stopping())])
            dist.all_reduce(votes)
            (folder / f"step-{rank}").write_text(str(step))
            if fail == "slow" and stopping():
                time.sleep(600)
            if votes.item():
                raise Stopped(f"Stopped after step {step}.")


class Job:
    """Ranks of one job, forked from this process, which has torch already."""

    def __init__(self, folder: Path, world: int = 2, fail: str = "", timeout_s: float = TIMEOUT_S) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self.folder = folder
        self.ranks = [
            FORK.Process(target=exiting, args=(rank, port, folder, world, fail, timeout_s))
            for rank in range(world)
        ]
        for rank in self.ranks:
            rank.start()

    def wait_for_step(self, step: int) -> None:
        deadline = time.monotonic() + 60
        paths = [self.folder / f"step-{rank}" for rank in range(len(self.ranks))]
        while any(not path.exists() or int(path.read_text() or 0) < step for path in paths):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end(self, within_s: float, ranks: list[int]) -> list[int | None]:
        """Exit codes; None of what still runs after that time."""
        deadline = time.monotonic() + within_s
        for rank in ranks:
            self.ranks[rank].join(max(0.0, deadline - time.monotonic()))
        return [self.ranks[rank].exitcode for rank in ranks]

    def said(self, rank: int) -> str:
        return " ".join((self.folder / f"said-{rank}").read_text().split())


def exiting(*job) -> None:
    import typer

    try:
        train(*job)
    except typer.Exit as end:
        os._exit(end.exit_code)
    os._exit(0)


@pytest.fixture
def start(tmp_path):
    jobs = []

    def start(**options) -> Job:
        jobs.append(Job(tmp_path, **options))
        return jobs[-1]

    yield start
    for job in jobs:
        for rank in job.ranks:
            rank.kill()
            rank.join()


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_ends_the_job_and_is_named(start, killed):
    job = start(timeout_s=60.0)
    job.wait_for_step(SETTLED)
    os.kill(job.ranks[killed].pid, signal.SIGKILL)
    assert job.end(10, [1 - killed]) == [EXIT_LOST]
    said = job.said(1 - killed)
    assert said.startswith(
        f"Rank {killed} (process {job.ranks[killed].pid} on {socket.gethostname()}) was killed"
    )
    assert "The same command goes on from the newest checkpoint." in said


def test_a_stopped_rank_is_named_with_its_step(start):
    job = start()
    job.wait_for_step(SETTLED)
    os.kill(job.ranks[1].pid, signal.SIGSTOP)
    assert job.end(TIMEOUT_S + 10, [0]) == [EXIT_LOST]
    assert f"Rank 1 (process {job.ranks[1].pid} on" in job.said(0)
    assert "hangs: it has been silent for" in job.said(0)
    assert "at step" in job.said(0)


def test_a_rank_that_hangs_while_it_reads_is_named(start):
    job = start(fail="read")
    assert job.end(60, [0]) == [EXIT_LOST]
    assert "wait for each other in vain: rank 0 at step 2, computing, rank 1 at step 2, reading." in job.said(
        0
    )


def test_a_rank_that_ends_with_an_error_is_quoted_by_the_others(start):
    job = start(fail="input", timeout_s=60.0)
    assert job.end(60, [0, 1]) == [EXIT_LOST, 2]
    assert "Rank 1 ended at step 2, reading: The disk is full." in job.said(0)
    assert job.said(1) == "The disk is full."


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_one_rank_stops_all_after_the_same_step(start, number):
    job = start()
    job.wait_for_step(SETTLED)
    os.kill(job.ranks[1].pid, number)
    os.kill(job.ranks[1].pid, number)
    assert job.end(20, [0, 1]) == [EXIT_RESUMABLE, EXIT_RESUMABLE]
    assert job.said(0) == job.said(1)
    assert "Stopped after step" in job.said(0)


def test_a_step_that_takes_too_long_to_be_saved_is_given_up(start, monkeypatch):
    monkeypatch.setattr(supervision, "TERM_S", 1.0)
    job = start(world=1, fail="slow")
    job.wait_for_step(SETTLED)
    os.kill(job.ranks[0].pid, signal.SIGTERM)
    assert job.end(20, [0]) == [EXIT_RESUMABLE]
    assert "There was no time to finish and save the step" in job.said(0)


def launch(folder: Path, pids) -> None:
    os.environ["TORCHELASTIC_RUN_ID"] = "test"
    job = Job(folder)
    for place, rank in enumerate(job.ranks):
        pids[place] = rank.pid
    time.sleep(600)


def test_ranks_whose_launcher_was_killed_save_and_leave(tmp_path):
    pids = FORK.Array("i", 2)
    launcher = FORK.Process(target=launch, args=(tmp_path, pids))
    launcher.start()
    try:
        while not all((tmp_path / f"step-{rank}").exists() for rank in (0, 1)):
            time.sleep(0.05)
        launcher.kill()
        launcher.join()
        deadline = time.monotonic() + 15
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        for pid in pids:
            if pid and Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)
    said = [(tmp_path / f"said-{rank}").read_text() for rank in (0, 1)]
    assert all("Stopped after step" in each for each in said)
    assert any("The launcher of this process is gone" in each for each in said)  # one may notice for both
