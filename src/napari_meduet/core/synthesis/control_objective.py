"""Training of a ControlNet: the generator's own loss, given a mask (M-40).

The generator stays fixed. Only the ControlNet is trained and averaged. `objective.py` trains the generator.
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
    network_inputs,
    velocity_loss,
)
from napari_meduet.core.teacher import ramped_decay, update_teacher


class ControlBatch(GenerationBatch):
    """A batch of generator training, with the `mask_fractions` of each row."""

    mask: Float[Tensor, "B K X Y Z"]


@dataclass(frozen=True, kw_only=True)
class ControlConfig(GenerationConfig):
    """Options of ControlNet training: those of its generator, and the classes of its masks.

    Attributes:
        labels: label number of each class in a mask file, the background first.
        names: names of the classes, in the same order.
    """

    labels: tuple[int, ...] = (0,)
    names: tuple[str, ...] = ("background",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.labels) != len(self.names):
            raise ValueError(
                f"labels and names must have the same length; got {self.labels} and {self.names}."
            )

    def build(self, network: GeneratorConfig) -> nn.Module:
        """Build a ControlNet; `load_generator` gives it the weights of a trained generator."""
        return ControlObjective(self, Generator(network), len(self.labels))


class ControlObjective(nn.Module):
    """A ControlNet in training, its average, and the fixed generator.

    Attributes:
        student: the ControlNet that the optimizer trains.
        teacher: exponential moving average of the student; it is used for sampling.
    """

    def __init__(self, config: GenerationConfig, generator: Generator, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.generator = generator.requires_grad_(False)
        self.student = ControlNet(generator, num_classes)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    @torch.no_grad()
    def load_generator(self, generator: Generator) -> None:
        """Load the weights of a trained generator, and reset the ControlNet to a copy of its blocks."""
        self.generator.load_state_dict(generator.state_dict())
        initial = ControlNet(self.generator, self.student.num_classes).state_dict()
        self.student.load_state_dict(initial)
        self.teacher.load_state_dict(initial)

    def forward(self, batch: ControlBatch, step: int) -> dict[str, Float[Tensor, ""]]:
        """Return the generator's loss for its prediction with the ControlNet."""
        generator = self.generator
        x, time, conditions = network_inputs(generator.config, batch)
        modulation = generator.time_modulation(time) + generator.condition_modulation(conditions)
        spatial = generator.spatial_tokens(conditions)
        control = self.student(x, batch["mask"], modulation, spatial)
        predicted = generator.predict(x, modulation, spatial, control)
        return {"total": velocity_loss(generator.config, predicted, batch)}

    @torch.no_grad()
    def finish_step(self, step: int) -> None:
        """Update the average after an optimizer step."""
        update_teacher(self.teacher, self.student, ramped_decay(step, self.config.ema_decay))
