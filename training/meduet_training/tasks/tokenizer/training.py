"""How the wavelet tokenizer learns: crops in, crops back out, a latent that small noise does not hurt.

The error that counts is in HU over [-1000, 1000] for CT and in profile units for MR, since that is how a
reader sees it; a share in profile units keeps soft tissue sharp. Its logarithm is minimised, a PSNR, so that
MR, ten times harder, does not drown CT. A weak KL term gives the latent a variance, so that a network which
misses a latent value by little misses the picture by little. The training starts from the best linear code.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor

from meduet_training.data.augmentation.crops import CropSampler
from meduet_training.data.augmentation.intensity import to_hu, to_units
from meduet_training.data.caches.prepared import WorkingScan
from meduet_training.runtime.optimizer import adamw
from meduet_training.tasks.pretraining.linear_start import start_tokenizer_linearly
from napari_meduet.core.schedules import warmup_cosine
from napari_meduet.tokenizers.wavelet import STRIDE, WaveletConfig, WaveletTokenizer

HU_RANGE = (-1000.0, 1000.0)  # where the figures of issue and card are measured
BETAS = (0.9, 0.99)
SMALLEST_ERROR = 1e-6  # 60 dB: a batch of air must not rule the step


@dataclass(frozen=True, kw_only=True)
class TokenizerTraining:
    """One training of the wavelet tokenizer."""

    network: WaveletConfig = field(default_factory=WaveletConfig)
    steps: int = 3_000
    batch: int = 4  # crops a step, of each modality
    side: int = 48  # voxels
    learning_rate: float = 1.5e-3
    end_learning_rate: float = 1e-6
    weight_decay: float = 1e-4
    kl_weight: float = 1e-2
    unit_weight: float = 0.25  # of the squared error in profile units, beside the one in HU
    start_crops: int = 96  # of each modality, from which the linear code is computed
    seed: int = 2025

    def __post_init__(self) -> None:
        if self.side % STRIDE:
            raise ValueError(f"side is folded into cubes of {STRIDE} voxels; got {self.side}.")


def train_tokenizer(
    fabric: Fabric, scans: list[WorkingScan], training: TokenizerTraining
) -> Iterator[tuple[int, dict[str, Tensor], WaveletTokenizer]]:
    """Train on prepared scans; after each step hand out (step, losses, tokenizer)."""
    fabric.seed_everything(training.seed, verbose=False)
    by_modality = {name: [scan for scan in scans if scan.modality == name] for name in ("CT", "MR")}
    samplers = [
        CropSampler(of_modality, training.side, fabric.device, training.seed)
        for of_modality in by_modality.values()
        if of_modality
    ]
    network = WaveletTokenizer(training.network).to(fabric.device)
    start = [to_units(sampler.draw(training.start_crops), sampler.modality) for sampler in samplers]
    start_tokenizer_linearly(network, torch.cat(start)[:, None])
    optimizer = adamw(
        network, learning_rate=training.learning_rate, weight_decay=training.weight_decay, betas=BETAS
    )
    model, optimizer = fabric.setup(network, optimizer)
    model.mark_forward_method("encode")
    model.mark_forward_method("decode")
    for step in range(training.steps):
        share = warmup_cosine(step, training.steps, end=training.end_learning_rate / training.learning_rate)
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * share
        units = [to_units(sampler.draw(training.batch), sampler.modality) for sampler in samplers]
        volume = torch.cat(units)[:, None]  # (B, 1, side, side, side), one modality after the other
        mean, log_variance = model.encode(volume)
        latent = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        made = model.decode(latent)
        errors = [
            log_error(made_part, true_part, sampler.modality, training.unit_weight)
            for sampler, made_part, true_part in zip(
                samplers, made.split(training.batch), volume.split(training.batch), strict=True
            )
        ]
        losses = {
            "reconstruction": torch.stack(errors).sum(),
            "kl": 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean(),
        }
        losses["total"] = losses["reconstruction"] + training.kl_weight * losses["kl"]
        fabric.backward(losses["total"])
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield step, losses, network


def log_error(
    made: Float[Tensor, "B 1 X Y Z"], true: Float[Tensor, "B 1 X Y Z"], modality: str, unit_weight: float
) -> Float[Tensor, ""]:
    """Logarithm of the mean squared error where it counts (module docstring)."""
    made = made.float()
    error = (made - true).square().mean()
    if modality == "CT":
        span = HU_RANGE[1] - HU_RANGE[0]
        made_hu, true_hu = (to_hu(units).clamp(*HU_RANGE) / span for units in (made, true))
        error = (made_hu - true_hu).square().mean() + unit_weight * error
    return torch.log(error + SMALLEST_ERROR)
