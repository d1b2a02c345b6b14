"""Pooled factors as a generator reads them: of one length, with a null that can be learnt (Eqs. 14-17).

c0 and s0 differ in length from scan to scan by what a crop holds; only their direction is a condition. How
strong a condition is, the network learns as a temperature.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

EPSILON = 1e-6  # keeps a vector of zeros a vector of zeros


def normalised_factor(
    factor: Float[Tensor, "*B D"], log_temperature: Float[Tensor, ""]
) -> Float[Tensor, "*B D"]:
    """The factor's direction, 1/tau long: v / (|v| + eps) / tau. Eq. (14)."""
    length = factor.norm(dim=-1, keepdim=True)
    return factor / (length + EPSILON) / log_temperature.exp()


def initial_log_temperature(width: int) -> float:
    """Where log tau begins: tau = 1 / sqrt(D), so that an entry of the condition is about 1. Eq. (15)."""
    return -0.5 * math.log(width)


def dropped_factor(
    factor: Float[Tensor, "B D"], null: Float[Tensor, " D"], is_dropped: Bool[Tensor, " B"]
) -> Float[Tensor, "B D"]:
    """Each row's factor, or the null where it is dropped. Eq. (16)."""
    return torch.where(is_dropped.unsqueeze(-1), null.to(factor.dtype), factor)


class FactorCondition(nn.Module):
    """One factor as a condition: content or style.

    Attributes:
        log_temperature: learnt.
        null: stands for a factor that is not given; it passes the same norm.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(initial_log_temperature(width)))
        self.null = nn.Parameter(torch.randn(width) / math.sqrt(width))

    def forward(self, factor: Float[Tensor, "B D"], is_dropped: Bool[Tensor, " B"]) -> Float[Tensor, "B D"]:
        """The condition; factor and null pass the same norm. Eq. (17)."""
        return normalised_factor(dropped_factor(factor, self.null, is_dropped), self.log_temperature)
