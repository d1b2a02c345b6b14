"""Pretraining MeDUET on latents: one readable loop, restartable after any step.

`for batch: losses = objective(batch, step), backward, clip, step, teacher`. What the losses are is
`napari_meduet.core.objective`'s business. All random numbers of a step come with its batch
(data/step_batches.py), so a run that was interrupted goes on as if it had not been.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from meduet_training.checkpoints import save_checkpoint
from meduet_training.data.source import BatchSource
from meduet_training.data.step_batches import StepBatches
from meduet_training.linear_start import start_network_linearly
from meduet_training.machinery.folders import make_folder
from meduet_training.machinery.optimizer import adamw
from meduet_training.machinery.schedules import warmup_cosine
from meduet_training.machinery.stopping import Stopped
from meduet_training.machinery.watching import StepRecord, Unwatched, Watch
from meduet_training.resuming import (
    RunSettings,
    TrainedNetwork,
    load_trained,
    record_of,
    resume,
    tensors_of,
)
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import ObjectiveConfig
from napari_meduet.errors import InputError

LINEAR_START_VOLUMES = 64
NORM = "norm."  # begins what an objective returns for watching, beside its losses


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


def for_source(training: Pretraining, source: BatchSource[Any]) -> Pretraining:
    """The same training with a class for each domain of the source."""
    return replace(training, network=replace(training.network, num_domains=len(source.domains)))


def run_pretraining(
    fabric: Fabric,
    source: BatchSource[Any],
    training: Pretraining,
    folder: Path,
    watch: Watch = Unwatched(),
    is_stopped: Callable[[], bool] = lambda: False,
) -> TrainedNetwork:
    """Train, or go on where the folder's newest checkpoint ends.

    Args:
        is_stopped: asked after each step; if so, a checkpoint is written and the run ends there.

    Raises:
        InputError: the latents do not fit the network, or the folder holds another run's checkpoint.
        Stopped: before the last step, because `is_stopped` said so.
    """
    _check_shape(source, training.network)
    make_folder(folder)
    mean, std = source.statistics()
    fabric.seed_everything(training.seed, verbose=False)
    objective = training.objective.build(training.network)
    if training.linear_start:
        start = source.read(source.choose(-1, LINEAR_START_VOLUMES))
        start_network_linearly(objective, start["latent"])
    optimizer = adamw(
        objective,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        betas=training.betas,
    )
    settings = RunSettings(
        training=asdict(training),
        data_sha256=source.sha256,
        domains=list(source.domains),
        latent_mean=mean.tolist(),
        latent_std=std.tolist(),
        processes=fabric.world_size,
    )
    first = resume(folder, objective, optimizer, settings)
    model, optimizer = fabric.setup(objective, optimizer)
    model.train()
    steps = training.objective.total_steps
    batches = StepBatches(
        source, training.objective, training.network, batch=training.batch, seed=training.seed
    )
    ended = time.monotonic()
    for step in range(first, steps):
        share = warmup_cosine(
            step, steps, end=training.end_learning_rate / training.learning_rate, warmup=training.warmup
        )
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * share
        batch = fabric.to_device(batches[step])
        waited = time.monotonic() - ended
        losses = model(batch, step)
        fabric.backward(losses["total"])
        norm = nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        objective.finish_step(step)
        began, ended = ended, time.monotonic()
        watch.on_step(
            StepRecord(
                step=step,
                losses={name: value for name, value in losses.items() if not name.startswith(NORM)},
                learning_rate=training.learning_rate * share,
                gradient_norm=norm,
                feature_norms={
                    name.removeprefix(NORM): value for name, value in losses.items() if name.startswith(NORM)
                },
                step_seconds=ended - began,
                data_wait_seconds=waited,
            )
        )
        done, stopped = step + 1, is_stopped()
        if done % training.checkpoint_every == 0 or done == steps or stopped:
            save_checkpoint(folder, done, tensors_of(objective, optimizer), record_of(settings))
        if stopped and done < steps:
            raise Stopped(f"Stopped after step {done} of {steps}; the same command goes on from there.")
    return load_trained(folder)


def _check_shape(source: BatchSource[Any], network: MeDUETConfig) -> None:
    found, expected = (" x ".join(map(str, shape)) for shape in (source.latent_shape, network.latent_shape))
    if found != expected:
        raise InputError(
            f"The latents have {found} numbers (channels first), but the network reads {expected}; make them "
            "again, or choose another network."
        )
