"""Content and style of a whole scan, and the style prototype of a site (C.2, Eq. 25, M-21).

Windows cover the scan. Tokens with almost no body are dropped; the other tokens are weighted by their body
coverage. `sliding_windows.py` places the windows, `swapping.py` applies a style.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST_COVERAGE = 0.05  # C.2: a token with less body than this is dropped
PROTOTYPE_DECAY = 0.90  # Table 12


@dataclass(frozen=True, kw_only=True, eq=False)
class StyleStatistics:
    """Mean and standard deviation of style tokens; the mean over all tokens of a scan is its s0."""

    mean: Float[Tensor, "*B Ds"]
    std: Float[Tensor, "*B Ds"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ScanFactors:
    """Pooled content c0 of a scan, and its style statistics; their mean is s0."""

    content: Float[Tensor, "Dc"]
    style: StyleStatistics


def body_weight(coverage: Float[Tensor, "*B L"]) -> Float[Tensor, "*B L"]:
    """Return the weight of each token in a pooled factor: its body coverage, or 0 below 5 %.

    If all tokens of a row fall below 5 %, they get equal weights: training meets crops that hold only air.
    """
    weight = torch.where(coverage < SMALLEST_COVERAGE, 0.0, coverage)
    return torch.where(weight.sum(dim=-1, keepdim=True) > 0, weight, 1.0)


def weighted_mean(tokens: Float[Tensor, "*B L D"], weight: Float[Tensor, "*B L"]) -> Float[Tensor, "*B D"]:
    """Return the weighted mean of the tokens; at least one weight must not be 0."""
    weighted = (tokens.float() * weight.unsqueeze(-1)).sum(dim=-2)
    return weighted / weight.sum(dim=-1, keepdim=True)


def pooled_factor(
    tokens: Float[Tensor, "*B L D"], coverage: Float[Tensor, "*B L"] | None = None
) -> Float[Tensor, "*B D"]:
    """Return the coverage-weighted mean of tokens: c0 of content tokens, s0 of style tokens (M-21).

    Args:
        coverage: fraction of body in each token, 0 to 1. None: all tokens have equal weight.
    """
    if coverage is None:
        return tokens.float().mean(dim=-2)
    return weighted_mean(tokens, body_weight(coverage))


def style_statistics(
    style: Float[Tensor, "*B L Ds"], coverage: Float[Tensor, "*B L"] | None = None
) -> StyleStatistics:
    """Return the coverage-weighted mean and standard deviation of style tokens."""
    mean = pooled_factor(style, coverage)
    variance = pooled_factor((style.float() - mean.unsqueeze(-2)).square(), coverage)
    return StyleStatistics(mean=mean, std=variance.sqrt())


def scan_factors(
    content: Float[Tensor, "W L Dc"], style: Float[Tensor, "W L Ds"], coverage: Float[Tensor, "W L"]
) -> ScanFactors:
    """Return the factors of one scan from the tokens of all its windows (M-21).

    Raises:
        ValueError: no token holds enough body.
    """
    if not bool((coverage >= SMALLEST_COVERAGE).any()):
        raise ValueError(
            f"No part of this scan contains at least {SMALLEST_COVERAGE:.0%} of body, so its content and "
            "style cannot be computed. Check that the scan shows a patient and that its modality is right."
        )
    weight = coverage.flatten()
    return ScanFactors(
        content=pooled_factor(content.flatten(0, 1), weight),
        style=style_statistics(style.flatten(0, 1), weight),
    )


def style_prototype(scans: Sequence[StyleStatistics]) -> StyleStatistics:
    """Mean style, and mean standard deviation, of several scans of one site. Eq. (25).

    The prototype of a single scan equals the statistics of that scan to the last bit.
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
    """Return the prototype after one more scan, as an exponential moving average."""
    return StyleStatistics(
        mean=torch.lerp(scan.mean, prototype.mean, decay), std=torch.lerp(scan.std, prototype.std, decay)
    )
