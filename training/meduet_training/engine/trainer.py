"""Pretraining on latents: one readable loop, restartable after any step.

`for step: losses = objective(batch, step), backward, clip, step, teacher` (step.py). What the losses are
is the pretext's business, `napari_meduet.core.objective` by default. All random numbers of a step come with
its batch (data/step_batches.py), so a run that was interrupted goes on as if it had not been.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricOptimizer
from torch import nn

from meduet_training.data.sources.prefetching import Loading
from meduet_training.data.sources.protocol import BatchSource
from meduet_training.data.sources.step_batches import NetworkConfig, Shard, StepBatches
from meduet_training.engine.callbacks import NullCallback, StepRecord, TrainerCallback
from meduet_training.engine.checkpoints import FOLDER, KEPT, Checkpoint, load_checkpoint, save_checkpoint
from meduet_training.engine.resume import (
    RunSettings,
    fill_network,
    fill_optimizer,
    find_checkpoint,
    gather_state,
    record_of,
)
from meduet_training.engine.step import Outcome, Stepping, offending_rows
from meduet_training.runtime.fabric import Hardware, decided_by_first, fit_to_hardware, whole_copy
from meduet_training.runtime.folders import make_folder
from meduet_training.runtime.heartbeat import At, nowhere
from meduet_training.runtime.messages import Failed, say_on_stderr
from meduet_training.runtime.optimizer import adamw
from meduet_training.runtime.signals import Stopped
from meduet_training.tasks.finetuning.objectives import ClassificationConfig, SegmentationConfig
from meduet_training.tasks.pretraining.linear_start import start_network_linearly
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import ObjectiveConfig
from napari_meduet.core.pretexts.masked import MaskedConfig
from napari_meduet.core.pretexts.masked_diffusion import MaskedDiffusionConfig
from napari_meduet.core.pretexts.residual_unet import ResidualUNetConfig
from napari_meduet.core.schedules import warmup_cosine
from napari_meduet.core.synthesis.control_objective import ControlConfig
from napari_meduet.core.synthesis.objective import GenerationConfig
from napari_meduet.errors import InputError

LINEAR_START_VOLUMES = 64


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One pretraining; the defaults are those of Sec. 4.1 where it states them (specification, section 6).

    All that decides what is learnt: a run goes on only with the same.

    Attributes:
        model_sha256, start: of a generator, segmenter or classifier: the model whose latents or factors it
            reads, and whether its blocks begin as those of that model's encoder ("warm", "meduet") or at
            random. None where nobody said.
    """

    network: NetworkConfig
    objective: (
        ObjectiveConfig
        | MaskedConfig
        | MaskedDiffusionConfig
        | ControlConfig
        | GenerationConfig
        | SegmentationConfig
        | ClassificationConfig
    )
    batch: int = 64  # over all processes
    learning_rate: float = 1e-4
    end_learning_rate: float = 2e-5
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    warmup: float = 0.01  # of the steps
    linear_start: bool = False  # ours: for runs too short to learn what principal components know
    model_sha256: str | None = None
    start: Literal["warm", "meduet", "scratch"] | None = None
    seed: int = 2025

    def __post_init__(self) -> None:
        if self.objective.pairing and (self.batch < 2 or self.batch % 2):
            raise ValueError(
                f"batch holds pairs of volumes, so it must be even and at least 2; got {self.batch}."
            )
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1; got {self.batch}.")
        if self.linear_start and not isinstance(self.objective, ObjectiveConfig):
            raise ValueError("linear_start is for the pretext meduet; the others begin at random.")
        if self.start and isinstance(self.network, MeDUETConfig | ResidualUNetConfig):
            raise ValueError("start is for generators and tasks; pretrainings know linear_start.")

    @property
    def total_steps(self) -> int:
        return self.objective.total_steps


@dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """What a run does beside learning.

    Attributes:
        checkpoint_every: steps; None: a hundredth of the run, but at least 20.
        keep: so many checkpoints.
        validate_every: steps; None: a twentieth of the run.
        skips: so many steps in a row may be skipped because a loss was not finite.
    """

    checkpoint_every: int | None = None
    keep: int = KEPT
    validate_every: int | None = None
    skips: int = 10

    def __post_init__(self) -> None:
        for name in ("checkpoint_every", "keep", "validate_every", "skips"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1; got {number}.")

    def saves_after(self, done: int, total: int) -> bool:
        return done == total or done % (self.checkpoint_every or max(20, total // 100)) == 0

    def validates_after(self, done: int, total: int) -> bool:
        return done == total or done % (self.validate_every or max(1, total // 20)) == 0


class NotFinite(Failed):
    """Losses or gradients stayed NaN or infinite. The weights are those of the last step that was finite."""

    exit_code = 3


def for_source(training: TrainingConfig, source: BatchSource[Any]) -> TrainingConfig:
    """The same training with a class for each domain of the source."""
    if not isinstance(training.network, MeDUETConfig):
        return training
    return replace(training, network=replace(training.network, num_domains=len(source.domains)))


def check_training(training: TrainingConfig, source: BatchSource[Any], share: Shard) -> StepBatches:
    """The batches of a run, once it is known that they can be made.

    Raises:
        InputError: the latents do not fit the network, or the batch does not split.
    """
    found, expected = (
        " x ".join(map(str, shape)) for shape in (source.latent_shape, training.network.latent_shape)
    )
    if found != expected:
        raise InputError(
            f"The latents have {found} numbers (channels first), but the network reads {expected}; make them "
            "again, or choose another network."
        )
    try:
        return StepBatches(
            source,
            training.objective,
            training.network,
            batch=training.batch,
            seed=training.seed,
            share=share,
        )
    except ValueError as error:
        raise InputError(str(error)) from error


ALONE = Hardware(workers=0)
USUAL = TrainerOptions()
NOBODY = NullCallback()


def fit(
    fabric: Fabric,
    source: BatchSource[Any],
    training: TrainingConfig,
    folder: Path,
    *,
    hardware: Hardware = ALONE,
    upkeep: TrainerOptions = USUAL,
    build: Callable[[], nn.Module] | None = None,
    on_begin: Callable[[], None] = lambda: None,
    on_new: Callable[[nn.Module], None] = lambda objective: None,
    watch: TrainerCallback = NOBODY,
    is_stopped: Callable[[], bool] = lambda: False,
    at: At = nowhere,
    say: Callable[[str], None] = say_on_stderr,
) -> None:
    """Train, or go on where the folder's newest checkpoint ends. On all processes of a job together.

    Args:
        hardware: as `fabric` was made for.
        build: makes what is trained: a module with `forward(batch, step) -> losses`, of which `total` is
            minimised, and `finish_step(step)`, called after the optimizer. None: the objective's own `build`.
        on_begin: called on the first process once the folder is known to be this run's.
        on_new: is handed, on every process, the objective of a run that has no checkpoint, as it was made; it
            may set its weights, on all processes alike.
        watch: is told on the first process alone.
        is_stopped: asked in each step, on every process; one yes is enough, and the run ends after that step
            with a checkpoint.
        at: is told on every process where the training is, so that one that hangs can be named.
        say: hears what a person should know, on the first process alone.

    Raises:
        InputError: the latents do not fit the network, or the folder holds another run's checkpoint.
        Stopped: before the last step, because `is_stopped` said so.
        NotFinite: too many steps in a row had to be skipped.
    """
    share = Shard(rank=fabric.global_rank, num_ranks=fabric.world_size, accumulate=hardware.accumulate)
    batches = check_training(training, source, share)
    decided_by_first(fabric, lambda: make_folder(folder))
    mean, std = source.statistics()
    settings = RunSettings(
        training=asdict(training),
        data_sha256=source.sha256,
        domains=list(source.domains),
        latent_mean=mean.tolist(),
        latent_std=std.tolist(),
        processes=fabric.world_size,
        accumulate=hardware.accumulate,
    )
    checkpoint = _agreed_checkpoint(fabric, folder, settings, say)
    decided_by_first(fabric, on_begin)
    first, skipped = (checkpoint.step, int(checkpoint.record["skipped"])) if checkpoint else (0, 0)

    fabric.seed_everything(training.seed, verbose=False)
    build = build or (lambda: cast(Any, training.objective).build(training.network))
    objective = build()
    if checkpoint:
        fill_network(checkpoint, objective)
    else:
        if training.linear_start:
            start = source.read(source.choose(-1, LINEAR_START_VOLUMES))
            start_network_linearly(cast(Any, objective), start["latent"])
        on_new(objective)
    fit_to_hardware(objective, hardware)
    model = fabric.setup_module(objective)
    model.train()
    optimizer = adamw(
        objective,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        betas=training.betas,
    )
    if checkpoint:
        fill_optimizer(checkpoint, fabric, objective, optimizer)
    del checkpoint  # as large as the network and its moments

    def save(done: int, skipped: int) -> None:
        tensors = gather_state(fabric, objective, optimizer)
        record = record_of(settings) | {"skipped": skipped}
        decided_by_first(fabric, lambda: save_checkpoint(folder, done, tensors, record, upkeep.keep))

    steps = training.total_steps
    stepping = Stepping(
        fabric,
        objective,
        model,
        cast(_FabricOptimizer, fabric.setup_optimizers(optimizer)),
        accumulate=hardware.accumulate,
        clip=training.clip,
    )
    samples: list[str] = []  # blamed for the last step that was skipped

    def validated(done: int) -> str:
        """Look at the network, unless it was looked at; why the run shall end here, if it shall."""
        if done > first or decided_by_first(fabric, lambda: watch.lacks_validation(done)):
            at(done, "validating")
            _shown_to(watch.on_validation, fabric, objective, build, done)
        return decided_by_first(fabric, lambda: watch.reason_to_end(done))

    done, reason = first, ""
    if first and upkeep.validates_after(first, steps):  # killed after the checkpoint, before it was looked at
        reason = validated(first)
    workers, pin = hardware.workers, fabric.device.type == "cuda"
    with closing(Loading(batches, first_step=first, workers=workers, pin=pin)) as loading:
        for step in range(first, first if reason else steps):
            rate = training.learning_rate * warmup_cosine(
                step, steps, end=training.end_learning_rate / training.learning_rate, warmup=training.warmup
            )
            outcome = stepping.take(step, rate, loading, is_stopped, at)
            done = step + 1
            skipped = 0 if outcome.was_taken else skipped + 1
            if outcome.was_taken:
                if fabric.is_global_zero:
                    watch.on_step(_record(step, rate, outcome))
            else:
                samples = _blamed(stepping, batches, step, outcome)
                if fabric.is_global_zero:
                    watch.on_skip(step, samples)
                    scans = ", ".join(samples)
                    say(f"Step {step} was skipped: loss or gradient was not finite. Scans: {scans}.")
            if skipped > upkeep.skips:
                save(done - skipped, 0)
                raise NotFinite(
                    f"Stopped after {skipped} steps in a row whose loss or gradient was not finite; the last "
                    f"had scans {', '.join(samples)}. The checkpoint is that before them. Look at these "
                    f"scans, or lower the learning rate; the same command goes on from step {done - skipped}."
                )
            if upkeep.saves_after(done, steps) or outcome.is_stopped:
                at(step, "saving")
                save(done, skipped)
            if outcome.is_stopped and done < steps:
                raise Stopped(f"Stopped after step {done} of {steps}; the same command goes on from there.")
            if upkeep.validates_after(done, steps) and (reason := validated(done)):
                if not upkeep.saves_after(done, steps):
                    save(done, skipped)
                break
    if reason and done < steps and fabric.is_global_zero:
        say(f"Ended after step {done} of {steps}: {reason}")
    at(done, "ending")
    _shown_to(watch.on_end, fabric, objective, build, done)


def _agreed_checkpoint(
    fabric: Fabric, folder: Path, settings: RunSettings, say: Callable[[str], None]
) -> Checkpoint | None:
    """The first process finds the checkpoint; the others read the same file."""
    found: list[Checkpoint | None] = [None]

    def find() -> str:
        found[0] = find_checkpoint(folder, settings, say)
        return found[0].path.name if found[0] else ""

    name = decided_by_first(fabric, find)
    if fabric.is_global_zero or not name:
        return found[0]
    return load_checkpoint(folder / FOLDER / name)


def _record(step: int, rate: float, outcome: Outcome) -> StepRecord:
    return StepRecord(
        step=step,
        losses=outcome.losses,
        learning_rate=rate,
        gradient_norm=outcome.gradient_norm,
        feature_norms=outcome.feature_norms,
        step_seconds=outcome.seconds,
        data_wait_seconds=outcome.waited,
    )


def _blamed(stepping: Stepping, batches: StepBatches, step: int, outcome: Outcome) -> list[str]:
    """Hashes of the scans that made a step's loss infinite; of all its scans where none did so alone."""
    rows = offending_rows(stepping, step, outcome.parts).tolist()
    samples = [choice.sample for choice in batches.choose(step)]
    return sorted(
        {sample for sample, to_blame in zip(samples, rows, strict=True) if to_blame} or set(samples)
    )


def _shown_to(
    look: Callable[[int, nn.Module], None],
    fabric: Fabric,
    objective: nn.Module,
    build: Callable[[], nn.Module],
    done: int,
) -> None:
    """Let the first process look at the whole network; the others wait."""
    whole = whole_copy(fabric, objective, build)
    if whole is not None:
        whole.eval()
        look(done, whole)
        objective.train()
    fabric.barrier()
