"""The trainer on several processes: equal results, and faults on one process that stop all of them."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine import STEPS, Losses, Poisoned, engine_training, engine_windows
from torch.utils.data import get_worker_info

from meduet_training.data.sources.prefetching import WorkerDied
from meduet_training.data.sources.step_batches import Shard, StepBatches
from meduet_training.data.sources.windows import WindowSource
from meduet_training.engine.checkpoints import newest_checkpoint
from meduet_training.engine.config import TrainerOptions
from meduet_training.engine.trainer import NotFinite, Trainer, checked_batches
from meduet_training.runtime.fabric import Hardware, make_fabric
from meduet_training.tasks.pretraining.presets import with_domains_of
from napari_meduet.core.pretexts.masked import MaskedConfig
from napari_meduet.errors import InputError

HERE = Path(__file__).parents[1]


def run(folder, training=None, source=None, **options):
    """Train in one process, and return the callback with its records."""
    training = training or engine_training()
    source = source or WindowSource(engine_windows(), training.seed)
    watch = Losses()
    defaults = {"hardware": Hardware(workers=0), "log": lambda sentence: None}
    config = with_domains_of(training, source)
    Trainer(make_fabric("cpu"), config, source, folder, callback=watch, **defaults | options).fit()
    return watch


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return folder, run(folder)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Return the folder in which two processes trained."""
    folder = tmp_path_factory.mktemp("together")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    variables = os.environ | {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
    }  # fmt: skip
    ranks = [
        subprocess.Popen(
            [sys.executable, str(HERE / "two_ranks.py"), str(folder)],
            env=variables | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        assert [rank.wait(timeout=240) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    return folder


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_learn_what_one_does(alone, together, strategy):
    told = json.loads((together / f"{strategy}-clean.json").read_text())
    assert told["losses"] == pytest.approx(alone[1].losses, rel=1e-5)
    assert told["seen"] == alone[1].seen == list(range(1, STEPS + 1))
    before = newest_checkpoint(alone[0]).under("objective.")
    after = newest_checkpoint(together / f"{strategy}-clean").under("objective.")
    assert before.keys() == after.keys()
    # The gradient of a key's bias is rounding only, and Adam follows its sign: weights agree on average.
    difference = sum(float((after[name] - value).abs().sum()) for name, value in before.items())
    assert difference / sum(value.numel() for value in before.values()) < 1e-6
    for name in before:
        if name.startswith("teacher."):
            torch.testing.assert_close(after[name], before[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_step_not_finite_on_one_process_is_skipped_on_both(together, strategy):
    told = json.loads((together / f"{strategy}-poisoned.json").read_text())
    assert told["skipped"] == [[2, ["poison"]]]
    assert len(told["losses"]) == STEPS - 1
    checkpoint = newest_checkpoint(together / f"{strategy}-poisoned")
    assert checkpoint.step == STEPS
    for name, value in checkpoint.tensors.items():
        assert value.isfinite().all(), name


def test_one_process_goes_on_where_two_fully_sharded_ones_ended(together, tmp_path):
    """Two processes finished the run; one process resumes it, with a message about the other number."""
    training, sentences = engine_training(), []
    end = newest_checkpoint(together / "fsdp-clean")
    assert sorted(name.split(".")[-1] for name in end.tensors if "log_scale" in name) == [
        "exp_avg", "exp_avg_sq", "log_scale", "step",
    ]  # fmt: skip
    assert end.tensors["random.cpu"].shape[0] == 2
    run(together / "fsdp-clean", training, log=sentences.append)
    assert any("2 processes x 1 parts and goes on with 1 processes x 1 parts" in each for each in sentences)


def test_parts_of_a_batch_add_up_to_its_step(alone, tmp_path):
    """The contrast is within pairs, which no split separates; unlabelled volumes are in some parts only."""
    training = engine_training()
    training = replace(training, objective=replace(training.objective, scope="quadruplet"))
    whole = run(tmp_path / "whole", training)
    parts = run(tmp_path / "parts", training, hardware=Hardware(workers=0, accumulate=4))
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5)


def test_recomputed_activations_change_nothing(alone, tmp_path):
    again = run(tmp_path, hardware=Hardware(workers=0, recompute=True))
    assert again.losses == pytest.approx(alone[1].losses, rel=1e-6)


def test_workers_read_what_the_training_would_read(alone, tmp_path):
    assert run(tmp_path, hardware=Hardware(workers=2)).losses == alone[1].losses


def test_too_many_skips_end_the_run_before_them(tmp_path):
    training = engine_training()
    source = Poisoned(engine_windows(), training.seed, step=None)
    sentences = []
    with pytest.raises(NotFinite, match=r"3 steps in a row .* scans poison\..* goes on from step 0") as ended:
        run(tmp_path, training, source, options=TrainerOptions(skips=2), log=sentences.append)
    assert ended.value.exit_code == 3
    assert [sentence.split(":")[0] for sentence in sentences] == [
        f"Step {step} was skipped" for step in range(3)
    ]
    checkpoint = newest_checkpoint(tmp_path)
    assert checkpoint.step == 0
    assert all(value.isfinite().all() for value in checkpoint.tensors.values())


def test_a_step_that_was_skipped_leaves_nothing_behind(tmp_path):
    """Teacher, optimizer and scale are unchanged, and the next step continues from there."""
    training = engine_training(steps=2)
    poisoned = run(tmp_path / "a", training, Poisoned(engine_windows(), training.seed, step=0))
    assert poisoned.skipped == [(0, ["poison"])]
    state = newest_checkpoint(tmp_path / "a").tensors
    assert {int(value) for name, value in state.items() if name.endswith(".step")} == {1}


class Killed(WindowSource):
    """A source whose worker kills itself."""

    def read(self, choices):
        if get_worker_info():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(choices)


def test_a_worker_that_is_killed_ends_the_run_with_a_sentence(tmp_path):
    source = Killed(engine_windows(), 0)
    with pytest.raises(WorkerDied, match="goes on from the newest checkpoint") as ended:
        run(tmp_path, source=source, hardware=Hardware(workers=1))
    assert ended.value.exit_code == 1


class Unreadable(WindowSource):
    def read(self, choices):
        raise InputError("cache: the shard is gone.")


def test_an_error_in_a_worker_keeps_its_message(tmp_path):
    with pytest.raises(InputError) as refusal:
        run(tmp_path, source=Unreadable(engine_windows(), 0), hardware=Hardware(workers=1))
    assert str(refusal.value) == "cache: the shard is gone."


def test_no_error_leaves_workers_behind(tmp_path):
    """Python would wait for the workers at its exit, and they ignore signals."""

    def fails():
        assert multiprocessing.active_children()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(tmp_path, hardware=Hardware(workers=1), should_stop=fails)
    assert multiprocessing.active_children() == []


def test_signals_to_a_whole_job_leave_its_workers_alive(tmp_path):
    """A scheduler signals every process of a job; the training finishes its step with the workers' data."""
    training = engine_training(steps=3)
    source = WindowSource(engine_windows(), training.seed)
    asked = []

    def is_stopped():
        if not asked:
            for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
                os.kill(int(child), signal.SIGTERM)
        asked.append(None)
        return False

    assert (
        len(run(tmp_path, training, source, hardware=Hardware(workers=1), should_stop=is_stopped).losses) == 3
    )


@pytest.mark.parametrize(("ranks", "parts"), [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)])
def test_every_row_is_read_once_however_the_batch_is_split(ranks, parts):
    training = engine_training()
    source = WindowSource(engine_windows(), 0)

    def batches(rank, num_ranks, accumulate):
        share = Shard(rank=rank, num_ranks=num_ranks, accumulate=accumulate)
        return checked_batches(training, source, share)

    (whole,) = (batches(0, 1, 1)[3],)
    shares = [
        [batches(rank, ranks, parts)[3 * parts + part] for rank in range(ranks)] for part in range(parts)
    ]
    for name in ("latent", "mask", "domain"):
        together = torch.cat([share[name] for part in shares for share in part])
        assert torch.equal(together, whole[name]), name
    for share in (share for part in shares for share in part):
        rows = torch.arange(8 // (ranks * parts))
        assert torch.equal(share["partner"], rows ^ 1)
        assert share["labelled_fraction"] == whole["labelled_fraction"]


def test_partners_are_of_different_domains():
    training = engine_training()
    batches = checked_batches(training, WindowSource(engine_windows(), 0), Shard())
    for step in range(20):
        domain = batches[step]["domain"]
        if domain.bincount().max() <= 4 if (domain >= 0).all() else False:
            assert (domain[::2] != domain[1::2]).all()


@pytest.mark.parametrize(("ranks", "parts"), [(3, 1), (1, 3), (8, 1), (2, 4)])
def test_a_batch_that_does_not_split_is_refused(ranks, parts):
    share = Shard(num_ranks=ranks, accumulate=parts)
    with pytest.raises(InputError, match=f"batch of 8 .* for {ranks} processes x {parts} parts"):
        checked_batches(engine_training(), WindowSource(engine_windows(), 0), share)


def test_a_pretext_without_pairs_takes_any_batch():
    training = engine_training(objective=MaskedConfig(total_steps=1), batch=3)
    batches = StepBatches(
        WindowSource(engine_windows(), 0), training.objective, training.network, batch=3, seed=0
    )
    assert batches[0]["latent"].shape[0] == 3
    assert "partner" not in batches[0]


def test_a_run_ends_when_its_callback_has_a_reason_and_stays_ended(tmp_path):
    class Satisfied(Losses):
        def reason_to_end(self, step):
            return "nothing more to learn." if step >= 2 else ""

    training, told = engine_training(), []
    source = WindowSource(engine_windows(), training.seed)
    for expected in ([1, 2], []):
        watch = Satisfied()
        Trainer(
            make_fabric("cpu"),
            with_domains_of(training, source),
            source,
            tmp_path,
            hardware=Hardware(workers=0),
            options=TrainerOptions(checkpoint_every=100, validate_every=1),
            callback=watch,
            log=told.append,
        ).fit()
        assert watch.seen == expected
        assert newest_checkpoint(tmp_path).step == 2
    assert told == [f"Ended after step 2 of {STEPS}: nothing more to learn."] * 2
