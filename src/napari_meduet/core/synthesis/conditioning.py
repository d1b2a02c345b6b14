"""Pooled factors as a generator reads them: of one length, with a null that can be learnt (Eqs. 14-17).

c0 and s0 differ in length from scan to scan by what a crop holds; only their direction is a condition. How
strong a condition is, the network learns as a temperature. Before that a generator may whiten them with what
it knows of its training data (ours): pooled factors have most of their variance along a handful of directions
that all crops share, and what tells crops apart would be learnt last.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

EPSILON = 1e-6  # keeps a vector of zeros a vector of zeros
LEAST_SPREAD = 0.01  # of the largest: directions with less are noise, and are not made louder than this


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


def whitening(factors: Float[Tensor, "N D"]) -> tuple[Float[Tensor, " D"], Float[Tensor, "D D"]]:
    """Centre and symmetric map that give factors like these unit variance along every direction.

    Directions with less than 1 % of the largest spread are scaled as if they had that.
    """
    factors = factors.double()
    centre = factors.mean(dim=0)
    _, lengths, directions = torch.linalg.svd(factors - centre, full_matrices=False)
    spread = lengths / math.sqrt(len(factors))
    floor = LEAST_SPREAD * spread.max()
    scale = 1 / spread.clamp(min=floor) - 1 / floor  # what lies across all directions has less than the floor
    whitened = directions.T * scale @ directions + torch.eye(factors.shape[1]) / floor
    return centre.float(), whitened.float()


class FactorCondition(nn.Module):
    """One factor as a condition: content or style.

    Attributes:
        centre, whitening: change the factor first; 0 and the identity (the paper) until `fit` is called.
        log_temperature: learnt.
        null: stands for a factor that is not given; it passes the same norm.
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
        """Whiten what comes as these factors, those of the training data, would have to be."""
        centre, white = whitening(factors)
        self.centre.copy_(centre)
        self.whitening.copy_(white)

    def forward(self, factor: Float[Tensor, "B D"], is_dropped: Bool[Tensor, " B"]) -> Float[Tensor, "B D"]:
        """The condition; factor and null pass the same norm. Eq. (17)."""
        whitened = (factor - self.centre) @ self.whitening
        return normalised_factor(dropped_factor(whitened, self.null, is_dropped), self.log_temperature)
