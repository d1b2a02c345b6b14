"""Pretraining MeDUET on latent windows: one readable loop, restartable after any step.

`for step: draw, losses = objective(batch, step), backward, clip, step, teacher`. What the losses are is
`napari_meduet.core.objective`'s business. Every step draws its random numbers from its own seed, so a run
that was interrupted goes on as if it had not been.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric

from meduet_training.checkpoint import RunSettings, TrainedNetwork, load_trained, resume, save_checkpoint
from meduet_training.data.latent_windows import LatentWindows
from meduet_training.data.sampling import WindowSampler
from meduet_training.linear_start import start_network_linearly
from meduet_training.machinery.folders import make_folder
from meduet_training.machinery.optimizer import adamw
from meduet_training.machinery.progress import OnStep
from meduet_training.machinery.schedules import warmup_cosine
from meduet_training.machinery.stopping import Stopped
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import Objective, ObjectiveConfig
from napari_meduet.errors import InputError

LINEAR_START_WINDOWS = 64


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """One pretraining; the defaults are those of Sec. 4.1 where it states them (SPEC section 6)."""

    network: MeDUETConfig
    objective: ObjectiveConfig  # its total_steps is the length of the run
    batch: int = 64
    learning_rate: float = 1e-4
    end_learning_rate: float = 2e-5
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    warmup: float = 0.01  # of the steps
    linear_start: bool = False  # ours: for runs too short to learn what principal components know
    seed: int = 2025
    checkpoint_every: int = 100  # steps

    def __post_init__(self) -> None:
        if self.batch < 2 or self.batch % 2:
            raise ValueError(
                f"batch holds pairs of volumes, so it must be even and at least 2; got {self.batch}."
            )


def for_windows(training: Pretraining, windows: LatentWindows) -> Pretraining:
    """The same training with a class for each domain of the windows."""
    return replace(training, network=replace(training.network, num_domains=len(windows.domains)))


def run_pretraining(
    fabric: Fabric,
    windows: LatentWindows,
    training: Pretraining,
    folder: Path,
    on_step: OnStep = lambda step, losses: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> TrainedNetwork:
    """Train, or go on where the folder's checkpoint ends; `on_step` hears the losses of each step.

    Args:
        is_stopped: asked after each step; if so, a checkpoint is written and the run ends there.

    Raises:
        InputError: the windows do not fit the network, or the folder holds another run's checkpoint.
        Stopped: before the last step, because `is_stopped` said so.
    """
    _check_shape(windows, training.network)
    make_folder(folder)
    mean, std = windows.statistics()
    sampler = WindowSampler(windows, mean, std, fabric.device, training.seed)
    fabric.seed_everything(training.seed, verbose=False)
    objective = Objective(training.network, training.objective)
    if training.linear_start:
        start_network_linearly(objective, sampler.draw(-1, LINEAR_START_WINDOWS)["latent"].cpu())
    optimizer = adamw(
        objective,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        betas=training.betas,
    )
    settings = RunSettings(
        training=asdict(training),
        windows_sha256=windows.sha256,
        domains=list(windows.domains),
        latent_mean=mean.tolist(),
        latent_std=std.tolist(),
    )
    first = resume(folder, objective, optimizer, settings)
    model, optimizer = fabric.setup(objective, optimizer)
    model.train()
    steps = training.objective.total_steps
    for step in range(first, steps):
        torch.manual_seed(training.seed * 1_000_003 + step)
        share = warmup_cosine(
            step, steps, end=training.end_learning_rate / training.learning_rate, warmup=training.warmup
        )
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * share
        losses = model(sampler.draw(step, training.batch), step)
        fabric.backward(losses["total"])
        fabric.clip_gradients(model, optimizer, max_norm=training.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        objective.finish_step(step)
        on_step(step, losses)
        done, stopped = step + 1, is_stopped()
        if done % training.checkpoint_every == 0 or done == steps or stopped:
            save_checkpoint(folder, done, objective, optimizer, settings)
        if stopped and done < steps:
            raise Stopped(f"Stopped after step {done} of {steps}; the same command goes on from there.")
    return load_trained(folder)


def _check_shape(windows: LatentWindows, network: MeDUETConfig) -> None:
    found, expected = (
        " x ".join(map(str, shape)) for shape in (windows.mean.shape[1:], network.latent_shape)
    )
    if found != expected:
        raise InputError(
            f"These windows hold latents of {found} numbers (channels first), but the network reads "
            f"{expected}; make them again, or choose another network."
        )
