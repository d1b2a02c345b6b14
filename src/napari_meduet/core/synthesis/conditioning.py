"""Pooled factors as conditions of a generator: normalised, with a learned null (Eqs. 14-17).

The lengths of c0 and s0 vary from scan to scan with the contents of a crop, so only their directions are
conditions. The network learns the length of a condition as a temperature. A generator may whiten the factors
first (this project): most of their variance lies along a few directions that all crops share, and without
whitening the differences between crops would be learned last.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

EPSILON = 1e-6  # avoids 0 / 0 for a vector of zeros
# Smallest std of a direction, relative to the largest, that whitening scales to 1. Directions below it are
# treated as noise and are amplified at most 100 times.
SMALLEST_STD = 0.01


def normalised_factor(
    factor: Float[Tensor, "*B D"], log_temperature: Float[Tensor, ""]
) -> Float[Tensor, "*B D"]:
    """Direction of the factor with length 1/tau: v / (|v| + eps) / tau. Eq. (14)."""
    length = factor.norm(dim=-1, keepdim=True)
    return factor / (length + EPSILON) / log_temperature.exp()


def initial_log_temperature(width: int) -> float:
    """Return the initial log tau: tau = 1 / sqrt(D), so that an entry of the condition is about 1."""
    return -0.5 * math.log(width)


def dropped_factor(
    factor: Float[Tensor, "B D"], null: Float[Tensor, " D"], is_dropped: Bool[Tensor, " B"]
) -> Float[Tensor, "B D"]:
    """Return the factor of each row, or the null if the row is dropped."""
    return torch.where(is_dropped.unsqueeze(-1), null.to(factor.dtype), factor)


def whitening(factors: Float[Tensor, "N D"]) -> tuple[Float[Tensor, " D"], Float[Tensor, "D D"]]:
    """Return centre and symmetric matrix that give such factors unit variance along every direction.

    Directions with less than 1 % of the largest std are scaled as if they had 1 %.
    """
    factors = factors.double()
    centre = factors.mean(dim=0)
    _, lengths, directions = torch.linalg.svd(factors - centre, full_matrices=False)
    std = lengths / math.sqrt(len(factors))
    floor = SMALLEST_STD * std.max()
    scale = 1 / std.clamp(min=floor) - 1 / floor  # directions without any variance are scaled by 1 / floor
    whitened = directions.T * scale @ directions + torch.eye(factors.shape[1]) / floor
    return centre.float(), whitened.float()


class FactorCondition(nn.Module):
    """Content or style as a condition.

    Attributes:
        centre, whitening: applied to the factor first; 0 and the identity (the paper) until `fit` is called.
        log_temperature: learned log tau.
        null: learned replacement of a dropped factor; it passes the same norm.
    """

    centre: Float[Tensor, " D"]
    whitening: Float[Tensor, "D D"]

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("whitening", torch.eye(width))
        self.log_temperature = nn.Parameter(torch.tensor(initial_log_temperature(width)))
        self.null = nn.Parameter(torch.randn(width) / math.sqrt(width))

    def fit(self, factors: Float[Tensor, "N D"]) -> None:
        """Set centre and whitening from the factors of the training data."""
        centre, white = whitening(factors)
        self.centre.copy_(centre)
        self.whitening.copy_(white)

    def forward(self, factor: Float[Tensor, "B D"], is_dropped: Bool[Tensor, " B"]) -> Float[Tensor, "B D"]:
        """Condition norm_tau(factor), or the null through the same norm. Eq. (15), Eq. (17)."""
        whitened = (factor - self.centre) @ self.whitening
        return normalised_factor(dropped_factor(whitened, self.null, is_dropped), self.log_temperature)
