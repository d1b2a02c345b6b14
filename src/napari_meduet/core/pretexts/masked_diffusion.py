"""Masked diffusion autoencoding (MDAE): clean data from noise with holes (specification, section 11).

Noise is added to the whole volume. Then blocks of 16^3 voxels (one token of a latent) are set to zero. A
network that knows the time predicts the clean volume. Without noise this is masked autoencoding; without
holes it is denoising score matching. The file is provisional: only a summary of the paper was available, and
docs/departures.md lists what we added.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Generator, Tensor, nn

from napari_meduet.core.demixing import draw_mask, mix
from napari_meduet.core.meduet import MeDUET, MeDUETConfig
from napari_meduet.core.objective import Batch
from napari_meduet.core.pretexts.masked import masked_loss, mean_where, token_error
from napari_meduet.core.pretexts.residual_unet import ResidualUNet, ResidualUNetConfig
from napari_meduet.core.pretexts.time_conditioning import TimeEmbedding, TokenFiLM

Corruption = Literal["ve", "vp", "flow"]

MASK_RATIOS = 0.01, 0.99  # lowest and highest fraction of hidden blocks (specification, section 11)
LARGEST_WEIGHT = 10.0  # of the visible blocks (specification, section 11)


@dataclass(frozen=True, kw_only=True)
class MaskedDiffusionConfig:
    """Options of masked diffusion, on latents or on voxels."""

    total_steps: int = 200_000  # as MeDUET's pretraining (specification, section 6)
    corruption: Corruption = "ve"
    sigma_max: float = 5.0  # noise over signal at t = 1 (specification, section 11)

    def __post_init__(self) -> None:
        if self.total_steps < 1:
            raise ValueError(f"total_steps must be at least 1; got {self.total_steps}.")
        if self.corruption not in get_args(Corruption):
            raise ValueError(f"corruption must be one of {get_args(Corruption)}; got {self.corruption!r}.")
        if not 0 <= self.sigma_max < math.inf:
            raise ValueError(f"sigma_max must be 0 or more and finite; got {self.sigma_max}.")

    @property
    def pairing(self) -> None:
        """None: volumes are not paired."""

    def draw(
        self, network: MeDUETConfig | ResidualUNetConfig, generator: Generator
    ) -> dict[str, Float[Tensor, "..."]]:
        """Return the random numbers of one row of a batch.

        `mask` is 1 for blocks that are set to zero, `time` is uniform in [0, 1], `noise` is normal.
        """
        low, high = MASK_RATIOS
        ratio = low + (high - low) * float(torch.rand((), generator=generator))
        return {
            "mask": draw_mask(network.num_tokens, ratio, generator),
            "time": torch.rand((), generator=generator),
            "noise": torch.randn(network.latent_shape, generator=generator),
        }

    def build(self, network: MeDUETConfig | ResidualUNetConfig) -> "MaskedDiffusion":
        """Build a student of this network: a transformer on latents, or a U-Net on voxels."""
        if isinstance(network, ResidualUNetConfig):
            return VoxelMaskedDiffusion(network, self)
        return LatentMaskedDiffusion(network, self)


class DiffusionBatch(Batch):
    """A batch with the random numbers of masked diffusion for each row."""

    time: Float[Tensor, "B"]
    noise: Float[Tensor, "B C X Y Z"]


def signal_and_noise(
    time: Float[Tensor, "B"], corruption: Corruption, sigma_max: float
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Return the factors a and b of X̃ = a X₀ + b Z at each time (specification, section 11).

    Args:
        time: 0 is data; at 1 the ratio of noise to signal is `sigma_max`.
        corruption: `ve` adds noise with σ = t σ_max. `vp` goes from data to noise along a circle, `flow`
            along a straight line, each at constant speed.
    """
    if corruption == "ve":
        return torch.ones_like(time), sigma_max * time
    if corruption == "vp":
        angle = math.atan(sigma_max) * time
        return angle.cos(), angle.sin()
    noise = sigma_max / (1 + sigma_max) * time
    return 1 - noise, noise


def corrupt(
    clean: Float[Tensor, "B C X Y Z"],
    noise: Float[Tensor, "B C X Y Z"],
    mask: Float[Tensor, "B L"],
    signal_scale: Float[Tensor, "B"],
    noise_scale: Float[Tensor, "B"],
    grid: tuple[int, int, int],
) -> Float[Tensor, "B C X Y Z"]:
    """Return the volume with noise, and with zeros in the masked blocks (specification, section 11)."""
    signal_scale, noise_scale = (rearrange(scale, "b -> b 1 1 1 1") for scale in (signal_scale, noise_scale))
    noised = signal_scale * clean + noise_scale * noise
    return mix(noised, torch.zeros_like(noised), mask, grid)


def visible_weight(noise_to_signal: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Return the weight min((1 + σ²) / σ², 10), and 0 at σ = 0 (specification, section 11).

    Visible blocks without noise are not a target, so the pretext without noise is masked autoencoding.
    """
    variance = noise_to_signal.square()
    weight = ((1 + variance) / variance).clamp(max=LARGEST_WEIGHT)
    return torch.where(noise_to_signal > 0, weight, torch.zeros_like(weight))


def visible_loss(
    error: Float[Tensor, "B L"], mask: Float[Tensor, "B L"], weight: Float[Tensor, "B"]
) -> Float[Tensor, ""]:
    """Return the weighted mean squared error of the visible blocks (specification, section 11).

    Args:
        mask: 1 for blocks that were set to zero.
        weight: weight of each row.
    """
    return (weight * mean_where(error, 1 - mask)).mean()


class MaskedDiffusion(nn.Module, ABC):
    """A student that predicts clean volumes from noised volumes with holes."""

    student: MeDUET | ResidualUNet

    def __init__(self, config: MaskedDiffusionConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def predict(
        self, corrupted: Float[Tensor, "B C X Y Z"], time: Float[Tensor, "B"]
    ) -> Float[Tensor, "B C X Y Z"]:
        """Return the predicted clean volume of a corrupted volume."""

    def forward(self, batch: DiffusionBatch, step: int) -> dict[str, Float[Tensor, ""]]:
        """Return the loss of hidden blocks, the weighted loss of visible blocks, and their sum as `total`."""
        clean, mask, time, network = batch["latent"], batch["mask"], batch["time"], self.student.config
        signal_scale, noise_scale = signal_and_noise(time, self.config.corruption, self.config.sigma_max)
        corrupted = corrupt(clean, batch["noise"], mask, signal_scale, noise_scale, network.grid)
        error = token_error(self.predict(corrupted, time), clean, network.patch_size)
        masked = masked_loss(error, mask)
        visible = visible_loss(error, mask, visible_weight(noise_scale / signal_scale))
        return {"masked": masked, "visible": visible, "total": masked + visible}

    def finish_step(self, step: int) -> None:
        """Do nothing after an optimizer step: there is no teacher."""


class LatentMaskedDiffusion(MaskedDiffusion):
    """Masked diffusion on latents: a MeDUET student with time conditioning before each encoder block."""

    student: MeDUET

    def __init__(self, network: MeDUETConfig, config: MaskedDiffusionConfig) -> None:
        super().__init__(config)
        self.student = MeDUET(network)
        self.student.content_domain.requires_grad_(False)  # as in masked.py
        self.student.style_domain.requires_grad_(False)
        self.student.decoder.hidden_token.requires_grad_(False)  # the decoder sees all tokens
        self.time = TimeEmbedding()
        self.films = nn.ModuleList(TokenFiLM(network.width) for _ in range(network.depth))

    def predict(
        self, corrupted: Float[Tensor, "B C X Y Z"], time: Float[Tensor, "B"]
    ) -> Float[Tensor, "B C X Y Z"]:
        encoder, time_features = self.student.encoder, self.time(time)
        tokens = encoder.transformer(
            encoder.embed(corrupted), lambda number, tokens: self.films[number](tokens, time_features)
        )
        return self.student.decode(*self.student.disentangle(tokens))


class VoxelMaskedDiffusion(MaskedDiffusion):
    """Masked diffusion on voxels: a U-Net with a residual encoder."""

    student: ResidualUNet

    def __init__(self, network: ResidualUNetConfig, config: MaskedDiffusionConfig) -> None:
        super().__init__(config)
        self.student = ResidualUNet(network)

    def predict(
        self, corrupted: Float[Tensor, "B C X Y Z"], time: Float[Tensor, "B"]
    ) -> Float[Tensor, "B C X Y Z"]:
        return self.student(corrupted, time)
