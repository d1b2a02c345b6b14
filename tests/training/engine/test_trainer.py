"""The trainer on one process: it learns, resumes bit for bit, and refuses the checkpoints of another run."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from small import network, random_windows

from meduet_training.data.sources.windows import WindowSource
from meduet_training.engine.callbacks import LossCallback
from meduet_training.engine.checkpoints import checkpoint_paths, newest_checkpoint, save_checkpoint
from meduet_training.engine.config import TrainerOptions, TrainingConfig
from meduet_training.engine.resume import load_trained
from meduet_training.engine.trainer import Trainer
from meduet_training.runtime.fabric import make_fabric
from meduet_training.runtime.progress import LOG, training_progress
from meduet_training.runtime.signals import Stopped
from meduet_training.tasks.pretraining.linear_start import init_weights, start_network_linearly
from meduet_training.tasks.pretraining.presets import with_domains_of
from napari_meduet.core.objective import Objective, ObjectiveConfig
from napari_meduet.errors import InputError

STEPS = 6


@pytest.fixture(scope="module")
def windows():
    return random_windows()


def training(steps: int = STEPS, **changes) -> TrainingConfig:
    """A training with all terms: distillation from the third step, swaps with truth, contrast."""
    objective = ObjectiveConfig.corrected(
        total_steps=steps,
        pairing="cross_domain",
        distillation_start=0.4,
        aligned_weight=1.0,
        aligned_content_weight=0.1,
    )
    recipe = TrainingConfig(network=network(), objective=objective, batch=4, learning_rate=1e-3, warmup=0.1)
    return replace(recipe, **changes)


def run(windows, recipe, folder, **options):
    source = WindowSource(windows, recipe.seed)
    config = with_domains_of(recipe, source)
    start = partial(init_weights, config=config, source=source)
    Trainer(make_fabric("cpu"), config, source, folder, init_weights=start, **options).fit()
    return load_trained(folder)


def stopping_after(steps: int):
    """Return a `should_stop` that returns True from its `steps`-th call on."""
    calls = []

    def is_stopped() -> bool:
        calls.append(None)
        return len(calls) >= steps

    return is_stopped


@pytest.mark.parametrize("linear_start", [False, True])
def test_a_stopped_run_resumes_bit_for_bit(tmp_path, windows, linear_start):
    recipe = training(linear_start=linear_start)
    whole = run(windows, recipe, tmp_path / "whole")
    for after in (2, 3):
        with pytest.raises(Stopped, match=rf"after step \d of {STEPS}; the same command goes on"):
            run(windows, recipe, tmp_path / "parts", should_stop=stopping_after(after))
    parts = run(windows, recipe, tmp_path / "parts")
    assert whole.step == parts.step == STEPS
    before, after = (newest_checkpoint(tmp_path / folder).tensors for folder in ("whole", "parts"))
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert any(name.startswith("optimizer.") for name in before)


def test_a_finished_run_is_not_run_again(tmp_path, windows):
    run(windows, training(), tmp_path)
    steps = []
    run(windows, training(), tmp_path, callback=LossCallback(lambda step, losses: steps.append(step)))
    assert steps == []


def test_a_checkpoint_is_written_every_so_often(tmp_path, windows):
    done = []

    def on_step(step, losses):
        done.append(load_trained(tmp_path).step if checkpoint_paths(tmp_path) else 0)

    run(
        windows,
        training(),
        tmp_path,
        options=TrainerOptions(checkpoint_every=2),
        callback=LossCallback(on_step),
    )
    assert done == [0, 0, 2, 2, 4, 4]


def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(tmp_path, windows, capsys):
    recipe = training()
    whole = run(windows, recipe, tmp_path, options=TrainerOptions(checkpoint_every=2))
    newest = checkpoint_paths(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    steps = []
    again = run(windows, recipe, tmp_path, callback=LossCallback(lambda step, losses: steps.append(step)))
    assert steps == [4, 5]
    assert "step-00000006.safetensors: damaged" in capsys.readouterr().err
    for before, after in zip(whole.student.parameters(), again.student.parameters(), strict=True):
        assert torch.equal(before, after)


def test_another_number_of_processes_gives_a_message(tmp_path, windows, capsys):
    run(windows, training(), tmp_path)
    checkpoint = newest_checkpoint(tmp_path)
    checkpoint.record["settings"]["processes"] = 4
    save_checkpoint(tmp_path, checkpoint.step, checkpoint.tensors, checkpoint.record)
    run(windows, training(), tmp_path)
    assert "for 4 processes x 1 parts and goes on with 1 processes x 1 parts" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch": 6}, "(batch)"),
        ({"steps": 7}, "(objective.total_steps)"),
        ({"seed": 1, "clip": 2.0}, "(clip, seed)"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_by_name(tmp_path, windows, changes, named):
    run(windows, training(), tmp_path)
    with pytest.raises(InputError, match="holds a run with other settings") as refusal:
        run(windows, training(**changes), tmp_path)
    assert named in str(refusal.value)


def test_a_checkpoint_of_other_windows_is_refused(tmp_path, windows):
    run(windows, training(), tmp_path)
    with pytest.raises(InputError, match=r"other settings \(data\)"):
        run(replace(windows, mean=windows.mean + 1), training(), tmp_path)


def test_a_run_whose_only_checkpoint_is_damaged_does_not_start_again(tmp_path, windows):
    run(windows, training(steps=2), tmp_path)
    (path,) = checkpoint_paths(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="damaged"):
        run(windows, training(steps=2), tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="nothing was trained here"):
        load_trained(tmp_path)


def test_the_loss_falls(tmp_path, windows):
    totals = []
    recipe = training(steps=40)
    recipe = replace(
        recipe, objective=replace(recipe.objective, distillation_start=1.0)
    )  # one loss throughout
    run(
        windows,
        recipe,
        tmp_path,
        callback=LossCallback(lambda step, losses: totals.append(float(losses["total"].detach()))),
    )
    assert sum(totals[-5:]) < 0.9 * sum(totals[:5])


def test_every_loss_is_logged_once_across_a_stop(tmp_path, windows, monkeypatch):
    monkeypatch.setattr("meduet_training.runtime.progress.READ_EVERY", 1)
    for stop_after in (4, 99):
        (tmp_path / LOG).open("a").write('{"step": 3, "tot')  # a line that a killed process left incomplete
        with training_progress("", STEPS, tmp_path) as on_step:
            try:
                run(
                    windows,
                    training(),
                    tmp_path,
                    callback=LossCallback(on_step),
                    should_stop=stopping_after(stop_after),
                )
            except Stopped:
                continue
    rows = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(STEPS))
    terms = {
        "reconstruction",
        "full",
        "domain",
        "distillation",
        "contrast",
        "aligned",
        "aligned_content",
        "total",
    }
    assert all(set(row) == terms | {"step"} for row in rows)


def test_the_checkpoint_says_what_its_latents_mean(tmp_path, windows):
    trained = run(windows, training(steps=1), tmp_path)
    mean, std = windows.statistics()
    assert trained.settings.domains == list(windows.domains)
    assert trained.settings.latent_mean == mean.tolist()
    assert trained.settings.latent_std == std.tolist()
    assert trained.student.config.num_domains == 3


def test_latents_that_do_not_fit_the_network_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"have 8 x 8 x 8 x 8 numbers .* reads 4 x 8 x 8 x 8"):
        run(random_windows(channels=8), training(), tmp_path)


@pytest.mark.parametrize("batch", [0, 1, 5])
def test_a_batch_that_holds_no_pairs_is_refused(batch):
    with pytest.raises(ValueError, match="even and at least 2"):
        training(batch=batch)


@torch.no_grad()
def test_a_linear_start_reconstructs_before_any_step(windows):
    torch.manual_seed(0)
    latent = windows.mean.float()
    latent = (latent - latent.mean()) / latent.std()
    errors = []
    for start in (lambda *_: None, start_network_linearly):
        objective = Objective(network(num_domains=3), ObjectiveConfig.corrected(total_steps=1))
        start(objective, latent)
        student = objective.student
        errors.append(float((student.decode(*student.encode(latent)) - latent).square().mean()))
    assert errors[1] < 0.25 < 0.9 < errors[0]  # the error of the mean alone is 1
    for name, weight in objective.teacher.state_dict().items():
        assert torch.equal(weight, objective.student.state_dict()[name]), name
