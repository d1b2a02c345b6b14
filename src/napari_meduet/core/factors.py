"""One content and one style for a whole scan, and prototypes of a site (C.2, Eq. 25, M-21).

Windows cover the scan; tokens that hold next to no body are dropped and the others weigh as much as they
hold. Where the windows lie is sliding_windows.py's business, what is done with a style swapping.py's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST_COVERAGE = 0.05  # C.2: a token with less body than this says nothing of the patient
PROTOTYPE_DECAY = 0.90  # Table 12


@dataclass(frozen=True, kw_only=True, eq=False)
class StyleStatistics:
    """Mean and spread of style tokens; the mean over a scan's tokens is the scan's s0."""

    mean: Float[Tensor, "*B Ds"]
    std: Float[Tensor, "*B Ds"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ScanFactors:
    """What a scan shows, and how: c0 and the statistics of its style, whose mean is s0."""

    content: Float[Tensor, "Dc"]
    style: StyleStatistics


def body_weight(coverage: Float[Tensor, "*B L"]) -> Float[Tensor, "*B L"]:
    """Weight of each token in a pooled factor: its share of body, or 0 below 5 %.

    Where no token is left, all weigh the same: training meets crops of nothing but air.
    """
    weight = torch.where(coverage < SMALLEST_COVERAGE, 0.0, coverage)
    return torch.where(weight.sum(dim=-1, keepdim=True) > 0, weight, 1.0)


def weighted_mean(tokens: Float[Tensor, "*B L D"], weight: Float[Tensor, "*B L"]) -> Float[Tensor, "*B D"]:
    """Mean of the tokens, each with its weight; at least one must not be 0."""
    weighted = (tokens.float() * weight.unsqueeze(-1)).sum(dim=-2)
    return weighted / weight.sum(dim=-1, keepdim=True)


def pooled_factor(
    tokens: Float[Tensor, "*B L D"], coverage: Float[Tensor, "*B L"] | None = None
) -> Float[Tensor, "*B D"]:
    """Coverage-weighted mean of tokens: c0 of content tokens, s0 of style tokens (M-21).

    Args:
        coverage: share of body in each token, 0 to 1. None: every token counts the same.
    """
    if coverage is None:
        return tokens.float().mean(dim=-2)
    return weighted_mean(tokens, body_weight(coverage))


def style_statistics(
    style: Float[Tensor, "*B L Ds"], coverage: Float[Tensor, "*B L"] | None = None
) -> StyleStatistics:
    """Coverage-weighted mean and standard deviation of style tokens."""
    mean = pooled_factor(style, coverage)
    variance = pooled_factor((style.float() - mean.unsqueeze(-2)).square(), coverage)
    return StyleStatistics(mean=mean, std=variance.sqrt())


def scan_factors(
    content: Float[Tensor, "W L Dc"], style: Float[Tensor, "W L Ds"], coverage: Float[Tensor, "W L"]
) -> ScanFactors:
    """Factors of one scan from the tokens of all its windows (M-21).

    Raises:
        ValueError: where no token holds enough body.
    """
    if not bool((coverage >= SMALLEST_COVERAGE).any()):
        raise ValueError(
            f"No part of this scan holds at least {SMALLEST_COVERAGE:.0%} of body, so it has no factors to "
            "pool. Check that the scan shows a patient and that its modality is right."
        )
    weight = coverage.flatten()
    return ScanFactors(
        content=pooled_factor(content.flatten(0, 1), weight),
        style=style_statistics(style.flatten(0, 1), weight),
    )


def style_prototype(scans: Sequence[StyleStatistics]) -> StyleStatistics:
    """Mean style, and mean spread, of several scans of one site. Eq. (25).

    Of one scan it is that scan's own statistics, to the last bit.
    """
    if not scans:
        raise ValueError("A prototype needs at least one scan; got none.")
    return StyleStatistics(
        mean=torch.stack([scan.mean for scan in scans]).mean(dim=0),
        std=torch.stack([scan.std for scan in scans]).mean(dim=0),
    )


def updated_prototype(
    prototype: StyleStatistics, scan: StyleStatistics, decay: float = PROTOTYPE_DECAY
) -> StyleStatistics:
    """The prototype after one more scan, as a running average."""
    return StyleStatistics(
        mean=torch.lerp(scan.mean, prototype.mean, decay), std=torch.lerp(scan.std, prototype.std, decay)
    )
