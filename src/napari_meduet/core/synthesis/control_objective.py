"""What a ControlNet learns: the generator's own task, given a mask (M-40).

The generator stands still; only what reads the mask is trained, and averaged.
"""

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from napari_meduet.core.synthesis.control import ControlNet
from napari_meduet.core.synthesis.generator import Generator, GeneratorConfig
from napari_meduet.core.synthesis.objective import (
    GenerationBatch,
    GenerationConfig,
    ema_decay_at,
    given_of,
    velocity_loss,
)
from napari_meduet.core.teacher import update_teacher


class ControlBatch(GenerationBatch):
    """What a generator learns from, with `mask_shares` of each row."""

    mask: Float[Tensor, "B K X Y Z"]


@dataclass(frozen=True, kw_only=True)
class ControlConfig(GenerationConfig):
    """How a ControlNet is trained: as its generator.

    Attributes:
        labels: the number of each class in a mask, that of the background first.
        names: of the classes, in the same order.
    """

    labels: tuple[int, ...] = (0,)
    names: tuple[str, ...] = ("background",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.labels) != len(self.names):
            raise ValueError(f"labels and names are of the same classes; got {self.labels} and {self.names}.")

    def build(self, network: GeneratorConfig) -> nn.Module:
        """A ControlNet of a generator that `begin_with` gives its weights."""
        return ControlObjective(self, Generator(network), len(self.labels))


class ControlObjective(nn.Module):
    """A ControlNet in training, with its average; the generator does not move.

    Attributes:
        student: what the optimizer moves.
        teacher: its slow average, which samples.
    """

    def __init__(self, config: GenerationConfig, generator: Generator, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.generator = generator.requires_grad_(False)
        self.student = ControlNet(generator, num_classes)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    @torch.no_grad()
    def begin_with(self, generator: Generator) -> None:
        """Take the weights of a trained generator, and begin as a copy of its blocks."""
        self.generator.load_state_dict(generator.state_dict())
        begun = ControlNet(self.generator, self.student.num_classes).state_dict()
        self.student.load_state_dict(begun)
        self.teacher.load_state_dict(begun)

    def forward(self, batch: ControlBatch, step: int) -> dict[str, Tensor]:
        """The generator's own loss, of its prediction under control."""
        generator = self.generator
        x, time, conditions = given_of(generator.config, batch)
        modulation = generator.time_modulation(time) + generator.condition_modulation(conditions)
        spatial = generator.spatial_tokens(conditions)
        control = self.student(x, batch["mask"], modulation, spatial)
        predicted = generator.predict(x, modulation, spatial, control)
        return {"total": velocity_loss(generator.config, predicted, batch)}

    @torch.no_grad()
    def finish_step(self, step: int) -> None:
        """After the optimizer: the average follows."""
        update_teacher(self.teacher, self.student, ema_decay_at(step, self.config))
