"""A tiny pretraining whose losses do not depend on how the batch is split, and a faulty source."""

from dataclasses import replace

import torch
from small import network, random_windows

from meduet_training.data.caches.latent_windows import LatentWindows
from meduet_training.data.sources.windows import WindowSource
from meduet_training.engine.callbacks import NullCallback
from meduet_training.engine.config import TrainingConfig
from napari_meduet.core.objective import ObjectiveConfig

STEPS = 5


def engine_windows() -> LatentWindows:
    """Windows of which a third have no domain, so the processes get different numbers of labelled ones."""
    return random_windows()


def engine_training(steps: int = STEPS, **changes) -> TrainingConfig:
    objective = ObjectiveConfig.corrected(
        total_steps=steps, scope="global", pairing="cross_domain", distillation_start=0.4
    )
    recipe = TrainingConfig(network=network(), objective=objective, batch=8, learning_rate=1e-3, warmup=0.1)
    return replace(recipe, **changes)


class Losses(NullCallback):
    """A callback that stores losses, skipped steps and validated steps."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.skipped: list[tuple[int, list[str]]] = []
        self.seen: list[int] = []

    def on_step(self, record) -> None:
        self.losses.append(float(record.losses["total"]))

    def on_skip(self, step, samples) -> None:
        self.skipped.append((step, list(samples)))

    def on_validation(self, step, objective) -> None:
        """Run a forward pass of the full network, which only rank zero does."""
        with torch.no_grad():
            objective.student.encode(torch.zeros(1, *objective.student.config.latent_shape))
        self.seen.append(step)


class Poisoned(WindowSource):
    """A source with one row of NaN, in one step or, if `step` is None, in every step."""

    def __init__(self, windows: LatentWindows, seed: int, *, step: int | None, row: int = 0) -> None:
        super().__init__(windows, seed)
        self.step, self.row = step, row

    def choose(self, step, count):
        choices = super().choose(step, count)
        if self.step in (None, step) and len(choices) > self.row:
            choices[self.row] = replace(choices[self.row], sample="poison")
        return choices

    def read(self, choices):
        batch = super().read(choices)
        for row, choice in enumerate(choices):
            if choice.sample == "poison":
                batch["latent"][row, 0, 0, 0, 0] = torch.nan
        return batch
