"""What a generator learns: to say where a noised latent came from, given factors (specification, section 9).

All random numbers of a step come with its batch, as in `core/objective.py`, so that a run can be repeated
and resumed exactly. A slow average of the weights is kept beside them; it is what samples.
"""

import copy
from dataclasses import dataclass
from typing import TypedDict

import torch
from jaxtyping import Bool, Float
from torch import Generator as RandomNumbers
from torch import Tensor, nn

from napari_meduet.core.synthesis.diffusion import NUM_STEPS, on_its_path
from napari_meduet.core.synthesis.generator import Conditions, Generator, GeneratorConfig
from napari_meduet.core.synthesis.interpolant import broadcast, velocity
from napari_meduet.core.teacher import update_teacher

LEAST_WEIGHED_TIME = 0.3  # predicted data: below, only fine detail would be learnt


class GenerationBatch(TypedDict):
    """Latents with their factors, and the random numbers of a step.

    `drops_spatial` says where no content of places is given; content and style are dropped independently.
    """

    latent: Float[Tensor, "B C X Y Z"]
    content: Float[Tensor, "B Dc"]
    style: Float[Tensor, "B Ds"]
    spatial_content: Float[Tensor, "B L Dc"]
    time: Float[Tensor, " B"]
    noise: Float[Tensor, "B C X Y Z"]
    drops_content: Bool[Tensor, " B"]
    drops_style: Bool[Tensor, " B"]
    drops_spatial: Bool[Tensor, " B"]


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """How a generator is trained; the defaults are the paper's (Table 10, columns corrected)."""

    total_steps: int = 2_000_000
    drop_content: float = 0.2  # p_c
    drop_style: float = 0.2  # p_s
    drop_spatial: float = 0.5  # ours: half of the batch learns "similar", half "same anatomy"
    ema_decay: float = 0.9999
    pairing: None = None  # each volume is alone

    def __post_init__(self) -> None:
        for name in ("drop_content", "drop_style", "drop_spatial"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability from 0 to 1; got {getattr(self, name)}.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay lies from 0 to less than 1; got {self.ema_decay}.")

    def draw(self, network: GeneratorConfig, generator: RandomNumbers) -> dict[str, Tensor]:
        """Time, noise and what is dropped, for one row."""
        time, *chances = torch.rand(4, generator=generator)
        names = ("drops_content", "drops_style", "drops_spatial")
        limits = (self.drop_content, self.drop_style, self.drop_spatial)
        return {
            "time": time,
            "noise": torch.randn(network.latent_shape, generator=generator),
            **{name: chance < limit for name, chance, limit in zip(names, chances, limits, strict=True)},
        }

    def build(self, network: GeneratorConfig) -> nn.Module:
        return GenerationObjective(self, network)


class GenerationObjective(nn.Module):
    """A generator in training, with its average.

    Attributes:
        student: what the optimizer moves.
        teacher: its slow average, which samples.
    """

    def __init__(self, config: GenerationConfig, network: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.student = Generator(network)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    def forward(self, batch: GenerationBatch, step: int) -> dict[str, Tensor]:
        """The loss of a batch: mean square of the error of the velocity."""
        return {"total": generation_loss(self.student, batch)}

    @torch.no_grad()
    def fit_factors(self, content: Float[Tensor, "N Dc"], style: Float[Tensor, "N Ds"]) -> None:
        """Whiten conditions as these factors, of many crops of the training data, need it."""
        for generator in (self.student, self.teacher):
            generator.content.fit(content)
            generator.style.fit(style)

    @torch.no_grad()
    def finish_step(self, step: int) -> None:
        """After the optimizer: the average follows."""
        update_teacher(self.teacher, self.student, ema_decay_at(step, self.config))


def generation_loss(generator: Generator, batch: GenerationBatch) -> Float[Tensor, ""]:
    """What a generator gets wrong of a batch, on the path that its predictions belong to."""
    predicted = generator(*given_of(generator.config, batch))
    return velocity_loss(generator.config, predicted, batch)


def given_of(
    network: GeneratorConfig, batch: GenerationBatch
) -> tuple[Float[Tensor, "B C X Y Z"], Float[Tensor, " B"], Conditions]:
    """What a generator is given of a batch: noised latents on its path, their times, conditions."""
    time = trained_time(network, batch["time"])
    x = on_its_path(network.prediction, batch["latent"], batch["noise"], time)
    return x, time, conditions_of(batch)


def ema_decay_at(step: int, config: GenerationConfig) -> float:
    """How much of the average stays at a step: little in a young run, `ema_decay` in an old one."""
    return min(config.ema_decay, (1 + step) / (10 + step))


def trained_time(network: GeneratorConfig, time: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """The times drawn; for a DiT, the steps of its thousand that they fall in, 1 to 1000."""
    return ((time * NUM_STEPS).floor() + 1) / NUM_STEPS if network.prediction == "noise" else time


def conditions_of(batch: GenerationBatch) -> Conditions:
    """The batch's conditions, with no content of places where it is dropped."""
    given = ~batch["drops_spatial"]
    return Conditions(
        content=batch["content"],
        style=batch["style"],
        drops_content=batch["drops_content"],
        drops_style=batch["drops_style"],
        spatial_content=batch["spatial_content"] * given[:, None, None],
    )


def velocity_loss(
    network: GeneratorConfig,
    predicted: Float[Tensor, "B C X Y Z"],
    batch: GenerationBatch,
) -> Float[Tensor, ""]:
    """Mean square of the error of the velocity, or of the noise where a DiT predicts it."""
    if network.prediction == "noise":
        return (predicted - batch["noise"]).square().mean()
    target = velocity(batch["latent"], batch["noise"])
    if network.prediction == "data":  # (x_t - x) / t: the error of the velocity is that of the data over t
        weight = broadcast(batch["time"], predicted).clamp(min=LEAST_WEIGHED_TIME).square()
        return ((predicted - batch["latent"]).square() / weight).mean()
    return (predicted - target).square().mean()
