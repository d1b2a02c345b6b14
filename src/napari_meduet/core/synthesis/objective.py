"""Training of a generator: denoise latents, given their factors (specification, section 9).

All random numbers of a step come with its batch, as in `core/objective.py`, so a run can be repeated and
resumed exactly. An exponential moving average of the weights is kept; it is used for sampling.
"""

import copy
from dataclasses import dataclass
from typing import TypedDict

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Generator as RandomNumbers
from torch import Tensor, nn

from napari_meduet.core.synthesis.diffusion import NUM_STEPS, add_noise
from napari_meduet.core.synthesis.generator import Conditions, Generator, GeneratorConfig
from napari_meduet.core.synthesis.interpolant import broadcast, velocity
from napari_meduet.core.teacher import ramped_decay, update_teacher

# Predicted data: the loss of the velocity weights an error by 1 / t^2. The weight is at most 1 / 0.3^2 = 11,
# because larger weights at small times train fine detail only.
SMALLEST_WEIGHTED_TIME = 0.3


class GenerationBatch(TypedDict):
    """Latents with their factors, and the random numbers of a step.

    Attributes:
        spatial_content: content token of every position.
        drops_content, drops_style: rows whose factor is replaced by its null.
        drops_spatial: rows without spatial content.
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
    """Options of generator training; the defaults are the paper's (Table 10, columns corrected)."""

    total_steps: int = 2_000_000
    drop_content: float = 0.2  # p_c
    drop_style: float = 0.2  # p_s
    drop_spatial: float = 0.5  # this project: half of the rows train anatomy "similar", half "same"
    ema_decay: float = 0.9999
    pairing: None = None  # volumes are not paired

    def __post_init__(self) -> None:
        for name in ("drop_content", "drop_style", "drop_spatial"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability from 0 to 1; got {getattr(self, name)}.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be from 0 to less than 1; got {self.ema_decay}.")

    def draw(self, network: GeneratorConfig, generator: RandomNumbers) -> dict[str, Shaped[Tensor, "..."]]:
        """Time, noise and independent Bernoulli drops of the conditions, for one row. Eq. (16)."""
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
    """A generator in training and its average.

    Attributes:
        student: the generator that the optimizer trains.
        teacher: exponential moving average of the student; it is used for sampling.
    """

    def __init__(self, config: GenerationConfig, network: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.student = Generator(network)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    def forward(self, batch: GenerationBatch, step: int) -> dict[str, Float[Tensor, ""]]:
        """Return the loss of a batch as `total`."""
        return {"total": generation_loss(self.student, batch)}

    @torch.no_grad()
    def fit_factors(self, content: Float[Tensor, "N Dc"], style: Float[Tensor, "N Ds"]) -> None:
        """Fit the whitening of the conditions to the factors of many training crops."""
        for generator in (self.student, self.teacher):
            generator.content.fit(content)
            generator.style.fit(style)

    @torch.no_grad()
    def finish_step(self, step: int) -> None:
        """Update the average after an optimizer step."""
        update_teacher(self.teacher, self.student, ramped_decay(step, self.config.ema_decay))


def generation_loss(generator: Generator, batch: GenerationBatch) -> Float[Tensor, ""]:
    """Return the loss of a generator on a batch."""
    predicted = generator(*network_inputs(generator.config, batch))
    return velocity_loss(generator.config, predicted, batch)


def network_inputs(
    network: GeneratorConfig, batch: GenerationBatch
) -> tuple[Float[Tensor, "B C X Y Z"], Float[Tensor, " B"], Conditions]:
    """Return the inputs of a generator: noised latents, their times, and conditions."""
    time = training_time(network, batch["time"])
    x = add_noise(network.prediction, batch["latent"], batch["noise"], time)
    return x, time, conditions_of(batch)


def training_time(network: GeneratorConfig, time: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Return the times; for a DiT they are rounded up to one of its 1000 steps."""
    return ((time * NUM_STEPS).floor() + 1) / NUM_STEPS if network.prediction == "noise" else time


def conditions_of(batch: GenerationBatch) -> Conditions:
    """Return the conditions of a batch; dropped spatial content is set to zero."""
    kept = ~batch["drops_spatial"]
    return Conditions(
        content=batch["content"],
        style=batch["style"],
        drops_content=batch["drops_content"],
        drops_style=batch["drops_style"],
        spatial_content=batch["spatial_content"] * kept[:, None, None],
    )


def velocity_loss(
    network: GeneratorConfig,
    predicted: Float[Tensor, "B C X Y Z"],
    batch: GenerationBatch,
) -> Float[Tensor, ""]:
    """Return the mean squared error of the velocity, or of the noise for a DiT."""
    if network.prediction == "noise":
        return (predicted - batch["noise"]).square().mean()
    target = velocity(batch["latent"], batch["noise"])
    if network.prediction == "data":  # velocity (x_t - x) / t: its error is the error of the data over t
        weight = broadcast(batch["time"], predicted).clamp(min=SMALLEST_WEIGHTED_TIME).square()
        return ((predicted - batch["latent"]).square() / weight).mean()
    return (predicted - target).square().mean()
