"""How the wavelet tokenizer learns: crops in, crops back out, a latent that small noise does not hurt.

The error that counts is in HU over [-1000, 1000] for CT and in profile units for MR, since that is how a
reader sees it; a share in profile units keeps soft tissue sharp. Its logarithm is minimised, a PSNR, so that
MR, ten times harder, does not drown CT. A weak KL term gives the latent a variance, so that a network which
misses a latent value by little misses the picture by little. The training starts from the best linear code.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F

from meduet_training.data.crops import CropSampler
from meduet_training.data.prepared import PreparedScan
from meduet_training.machinery.schedules import warmup_cosine
from napari_meduet.tokenizers.wavelet import WaveletConfig, WaveletTokenizer
from napari_meduet.volumes.intensity import CT_FULL

HU_RANGE = (-1000.0, 1000.0)  # where the figures of issue and card are measured
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
        if self.side % 16:
            raise ValueError(
                f"side is cut into 16-voxel tokens and must be a multiple of 16; got {self.side}."
            )


def train_tokenizer(
    fabric: Fabric, scans: list[PreparedScan], training: TokenizerTraining
) -> Iterator[tuple[int, dict[str, float], WaveletTokenizer]]:
    """Train on prepared scans; after each step hand out (step, losses, tokenizer)."""
    fabric.seed_everything(training.seed)
    device = fabric.device
    samplers = [
        CropSampler(
            [scan for scan in scans if scan.modality == modality], training.side, device, training.seed
        )
        for modality in ("CT", "MR")
        if any(scan.modality == modality for scan in scans)
    ]
    network = WaveletTokenizer(training.network).to(device)
    start = [to_units(sampler.draw(training.start_crops), sampler.modality) for sampler in samplers]
    start_from_linear_code(network, torch.cat(start)[:, None])
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": training.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=training.learning_rate,
        betas=(0.9, 0.99),
    )
    model, optimizer = fabric.setup(network, optimizer)
    model.mark_forward_method("encode")
    model.mark_forward_method("decode")
    for step in range(training.steps):
        share = warmup_cosine(step, training.steps, end=training.end_learning_rate / training.learning_rate)
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * share
        drawn = [(sampler.modality, sampler.draw(training.batch)) for sampler in samplers]
        units = [to_units(values, modality) for modality, values in drawn]
        volume = torch.cat(units)[:, None]  # (B, 1, side, side, side)
        mean, log_variance = model.encode(volume)
        latent = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        back = model.decode(latent)
        losses = {
            "reconstruction": _reconstruction(
                back, volume, [(m, len(u)) for (m, _), u in zip(drawn, units, strict=True)], training
            ),
            "kl": 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean(),
        }
        losses["total"] = losses["reconstruction"] + training.kl_weight * losses["kl"]
        fabric.backward(losses["total"])
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield step, losses, network


@torch.no_grad()
def start_from_linear_code(tokenizer: WaveletTokenizer, volume: Float[Tensor, "B 1 X Y Z"]) -> None:
    """Set the linear layers to the whitened principal components of the coefficients, and silence the rest."""
    coefficients = tokenizer.coefficients_of(volume).flatten(0, 3) * tokenizer.scale  # (N, 64), true energies
    mean = coefficients.mean(dim=0)
    variances, components = torch.linalg.eigh(torch.cov(coefficients.T))
    chosen = slice(-tokenizer.channels, None)
    spread = variances[chosen].sqrt()
    to_latent = components[:, chosen].T / spread[:, None]  # (C, 64)
    tokenizer.linear_code.weight.copy_(to_latent * tokenizer.scale)
    tokenizer.linear_code.bias.copy_(-to_latent @ mean)
    tokenizer.linear_decode.weight.copy_(components[:, chosen] * spread / tokenizer.scale[:, None])
    tokenizer.linear_decode.bias.copy_(mean / tokenizer.scale)
    for layer in (tokenizer.squeeze, tokenizer.coefficients):
        layer.weight.zero_()
        layer.bias.zero_()
    tokenizer.squeeze.bias[tokenizer.channels :] = -5.0  # log-variance: a standard deviation of 0.08


def to_units(values: Float[Tensor, "*shape"], modality: str) -> Float[Tensor, "*shape"]:
    """Profile units of HU (CT, `ct-full`); MR is prepared in units already. The knots are those of `M-03`."""
    return _interpolated(values, CT_FULL.knots) if modality == "CT" else values.clamp(0.0, 1.0)


def to_hu(units: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """HU of `ct-full` units, continued in a straight line outside [0, 1]."""
    return _interpolated(units, [(unit, value) for value, unit in CT_FULL.knots], clamp=False)


def _interpolated(values: Tensor, knots: Sequence[tuple[float, float]], *, clamp: bool = True) -> Tensor:
    """The piecewise-linear function through the knots, differentiable."""
    (x, y), slopes = knots[0], [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(knots)]
    if clamp:
        values = values.clamp(knots[0][0], knots[-1][0])
    result = y + slopes[0] * (values - x)
    for (knot, _), before, after in zip(knots[1:-1], slopes[:-1], slopes[1:], strict=True):
        result = result + (after - before) * F.relu(values - knot)
    return result


def _reconstruction(
    back: Tensor, volume: Tensor, parts: list[tuple[str, int]], training: TokenizerTraining
) -> Float[Tensor, ""]:
    """Logarithm of the mean squared error where it counts (module docstring), summed over modalities."""
    total = back.new_zeros(())
    start = 0
    for modality, count in parts:
        made, true = back[start : start + count].float(), volume[start : start + count]
        start += count
        error = (made - true).square().mean()
        if modality == "CT":
            span = HU_RANGE[1] - HU_RANGE[0]
            in_hu = [to_hu(units).clamp(*HU_RANGE) / span for units in (made, true)]
            error = (in_hu[0] - in_hu[1]).square().mean() + training.unit_weight * error
        total = total + torch.log(error + SMALLEST_ERROR)
    return total
