"""The training of the wavelet tokenizer: reconstruct crops from latents with noise.

The reconstruction error of CT is measured in HU over [-1000, 1000], as a reader sees the image. A part of the
error in normalised intensity keeps soft tissue sharp. The error of MR is measured in normalised intensity.
The loss is the logarithm of the error, so that MR, whose error is ten times larger, does not dominate CT. A
weak KL term gives the latent a variance, so that small errors in the latent cause small errors in the image.
The training starts from the best linear code (`linear_start.py`).
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
from meduet_training.tasks.tokenizer.linear_start import start_tokenizer_linearly
from napari_meduet.core.schedules import warmup_cosine
from napari_meduet.tokenizers.wavelet import STRIDE, WaveletConfig, WaveletTokenizer

HU_RANGE = (-1000.0, 1000.0)  # the range of the metrics on the model card
BETAS = (0.9, 0.99)
SMALLEST_ERROR = 1e-6  # 60 dB; without it, a batch of air would dominate the step


@dataclass(frozen=True, kw_only=True)
class TokenizerTraining:
    """Configuration of one training of the wavelet tokenizer.

    Attributes:
        network: sizes of the tokenizer.
        steps: optimizer steps.
        batch: crops of each modality in a step.
        side: voxels along each axis of a crop.
        learning_rate, end_learning_rate: at the start and at the end of a cosine schedule.
        weight_decay: of AdamW.
        kl_weight: weight of the KL term.
        unit_weight: weight of the squared error in normalised intensity, beside that in HU.
        start_crops: crops of each modality from which the linear code is computed.
        seed: seed of crops and weights.
    """

    network: WaveletConfig = field(default_factory=WaveletConfig)
    steps: int = 3_000
    batch: int = 4
    side: int = 48
    learning_rate: float = 1.5e-3
    end_learning_rate: float = 1e-6
    weight_decay: float = 1e-4
    kl_weight: float = 1e-2
    unit_weight: float = 0.25
    start_crops: int = 96
    seed: int = 2025

    def __post_init__(self) -> None:
        if self.side % STRIDE:
            raise ValueError(
                f"side must be a multiple of {STRIDE} voxels, the stride of the tokenizer; got {self.side}."
            )


def train_tokenizer(
    fabric: Fabric, scans: list[WorkingScan], training: TokenizerTraining
) -> Iterator[tuple[int, dict[str, Tensor], WaveletTokenizer]]:
    """Train on prepared scans, and yield (step, losses, tokenizer) after each step."""
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
        factor = warmup_cosine(step, training.steps, end=training.end_learning_rate / training.learning_rate)
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * factor
        units = [to_units(sampler.draw(training.batch), sampler.modality) for sampler in samplers]
        volume = torch.cat(units)[:, None]  # (B, 1, side, side, side), one modality after the other
        mean, log_variance = model.encode(volume)
        latent = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        decoded = model.decode(latent)
        errors = [
            log_error(decoded_part, true_part, sampler.modality, training.unit_weight)
            for sampler, decoded_part, true_part in zip(
                samplers, decoded.split(training.batch), volume.split(training.batch), strict=True
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
    decoded: Float[Tensor, "B 1 X Y Z"], true: Float[Tensor, "B 1 X Y Z"], modality: str, unit_weight: float
) -> Float[Tensor, ""]:
    """Return the logarithm of the mean squared error, in the unit of the modality (see the module header)."""
    decoded = decoded.float()
    error = (decoded - true).square().mean()
    if modality == "CT":
        span = HU_RANGE[1] - HU_RANGE[0]
        decoded_hu, true_hu = (to_hu(units).clamp(*HU_RANGE) / span for units in (decoded, true))
        error = (decoded_hu - true_hu).square().mean() + unit_weight * error
    return torch.log(error + SMALLEST_ERROR)
