"""Configuration of the trainer: what is trained (`TrainingConfig`), and how a run is kept (`TrainerOptions`).

A run resumes only with an equal `TrainingConfig`; `TrainerOptions` may change between two starts of a run.
The objective is a `PretextConfig` of any task. The configuration of each task holds its schema (tasks/).
"""

from dataclasses import dataclass
from typing import Literal

from meduet_training.data.sources.step_batches import NetworkConfig, PretextConfig
from meduet_training.engine.checkpoints import KEPT
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import ObjectiveConfig
from napari_meduet.core.pretexts.residual_unet import ResidualUNetConfig


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Everything that decides the result of a training.

    Defaults are those of Sec. 4.1 of the paper where it gives them (specification, section 6).

    Attributes:
        network: configuration of the network.
        objective: configuration of the losses; it also holds the number of steps.
        batch: rows of each step, summed over all processes.
        clip: largest norm of the gradient.
        warmup: fraction of the steps in which the learning rate rises.
        linear_start: initialise a pretraining with a linear autoencoder (tasks/pretraining/linear_start.py).
            This is ours, for runs too short to learn what principal components give at once.
        model_sha256: hash of the model whose latents or factors a generator, segmenter or classifier reads.
        start: initial weights of a generator, segmenter or classifier: those of the encoder of that model
            ("warm", "meduet"), or random ones ("scratch").
    """

    network: NetworkConfig
    objective: PretextConfig
    batch: int = 64
    learning_rate: float = 1e-4
    end_learning_rate: float = 2e-5
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    warmup: float = 0.01
    linear_start: bool = False
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
            raise ValueError("linear_start is for the pretext meduet. Other pretexts have random weights.")
        if self.start and isinstance(self.network, MeDUETConfig | ResidualUNetConfig):
            raise ValueError("start is for generators and fine-tuning. Pretraining has linear_start.")

    @property
    def total_steps(self) -> int:
        return self.objective.total_steps


@dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """Options of a run that do not change its result.

    Attributes:
        checkpoint_every: steps between two checkpoints. None: 1 % of the run, and at least 20.
        keep: number of checkpoints that are kept.
        validate_every: steps between two validations. None: 5 % of the run.
        skips: largest number of consecutive steps that are skipped because a loss or gradient is not finite.
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

    def saves_after(self, step: int, total: int) -> bool:
        """Whether a run of `total` steps saves a checkpoint after `step` steps."""
        return step == total or step % (self.checkpoint_every or max(20, total // 100)) == 0

    def validates_after(self, step: int, total: int) -> bool:
        """Whether a run of `total` steps is validated after `step` steps."""
        return step == total or step % (self.validate_every or max(1, total // 20)) == 0
