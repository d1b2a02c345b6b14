"""A minute pretraining whose losses do not depend on how its batch is cut, and sources that go wrong."""

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
    """A third of the volumes are nobody's, so labelled ones lie unevenly among the processes."""
    return random_windows()


def engine_training(steps: int = STEPS, **changes) -> TrainingConfig:
    objective = ObjectiveConfig.corrected(
        total_steps=steps, scope="global", pairing="cross_domain", distillation_start=0.4
    )
    recipe = TrainingConfig(network=network(), objective=objective, batch=8, learning_rate=1e-3, warmup=0.1)
    return replace(recipe, **changes)


class Losses(NullCallback):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.skipped: list[tuple[int, list[str]]] = []
        self.seen: list[int] = []

    def on_step(self, record) -> None:
        self.losses.append(float(record.losses["total"]))

    def on_skip(self, step, samples) -> None:
        self.skipped.append((step, list(samples)))

    def on_validation(self, step, objective) -> None:
        """A pass of the whole network, which no rank but the first makes."""
        with torch.no_grad():
            objective.student.encode(torch.zeros(1, *objective.student.config.latent_shape))
        self.seen.append(step)


class Poisoned(WindowSource):
    """One row is NaN, in one step or, if `step` is None, in all of them."""

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
