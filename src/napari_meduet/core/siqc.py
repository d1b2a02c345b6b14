"""Swap-invariance quadruplet contrast (Eqs. 7-12).

Two volumes i and j and their swaps ij (content of i, style of j) and ji are four views. The content of ij
must be that of i, its style that of j: a supervised contrast pulls each view to the one that shares its
factor, among those it may be compared with. Views are rows here; decoding and encoding them is
objective.py's business.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

Scope = Literal["quadruplet", "batch", "global"]
StyleNegatives = Literal["exclude_same_domain", "all"]

INITIAL_LOG_SCALE = math.log(1 / 0.07)  # CLIP's, specification, section 5
LARGEST_LOG_SCALE = math.log(100)  # CLIP's bound, specification, section 5


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewLabels:
    """Whose content and style each view carries; equal numbers mean the same."""

    view: Int[Tensor, "N"]
    quadruplet: Int[Tensor, "N"]
    content: Int[Tensor, "N"]
    style: Int[Tensor, "N"]
    style_domain: Int[Tensor, "N"]


def view_labels(domain: Int[Tensor, "B"], partner: Int[Tensor, "B"], rank: int = 0) -> ViewLabels:
    """Labels of 2B views: the volumes of a batch, then the swap of each with its partner.

    Args:
        domain: -1 where unlabelled; such a volume is a domain of its own.
        rank: which of the processes that train together the batch lies on.
    """
    num_volumes = domain.shape[0]
    first = rank * num_volumes
    volume = torch.arange(first, first + num_volumes, device=domain.device)
    other = volume[partner]
    style = torch.cat([volume, other])
    own_domain = torch.where(domain < 0, -1 - volume, domain)
    return ViewLabels(
        view=torch.arange(2 * first, 2 * (first + num_volumes), device=domain.device),
        quadruplet=torch.minimum(volume, other).repeat(2),
        content=volume.repeat(2),
        style=style,
        style_domain=own_domain[style - first],
    )


def compared_views(queries: ViewLabels, keys: ViewLabels, scope: Scope) -> Bool[Tensor, "N M"]:
    """Which keys each query is compared with: all but itself, or those of its own quadruplet."""
    others = queries.view[:, None] != keys.view[None, :]
    if scope == "quadruplet":
        return others & (queries.quadruplet[:, None] == keys.quadruplet[None, :])
    return others


def compared_styles(
    queries: ViewLabels, keys: ViewLabels, compared: Bool[Tensor, "N M"], negatives: StyleNegatives
) -> Bool[Tensor, "N M"]:
    """Which of the compared keys a query's style may differ from.

    Two scans of one domain share a style, so by default neither is the other's negative (C-20).
    """
    if negatives == "all":
        return compared
    same_style = queries.style[:, None] == keys.style[None, :]
    same_domain = queries.style_domain[:, None] == keys.style_domain[None, :]
    return compared & (same_style | ~same_domain)


def swap_styles(
    content: Float[Tensor, "B L Dc"], style: Float[Tensor, "B L Ds"], partner: Int[Tensor, "B"]
) -> tuple[Float[Tensor, "B L Dc"], Float[Tensor, "B L Ds"]]:
    """Content of each volume with the style its partner has at the same position. Eq. (7).

    Row b is the swap ij of volume b; the swap ji is the partner's row, so that no swap is decoded twice. The
    published code joins the tokens it kept of each volume by rank, which lie at different positions (C-05).
    """
    return content, style[partner]


def pooled_view(tokens: Float[Tensor, "B L D"]) -> Float[Tensor, "B D"]:
    """One unit vector for each view: layer norm of each token, mean over tokens, L2 norm. Eq. (8)."""
    normed = F.layer_norm(tokens.float(), tokens.shape[-1:])
    return F.normalize(normed.mean(dim=1), dim=-1)


def view_similarity(
    queries: Float[Tensor, "N D"],
    keys: Float[Tensor, "M D"],
    log_scale: Float[Tensor, ""],
    compared: Bool[Tensor, "N M"],
) -> Float[Tensor, "N M"]:
    """Scaled cosine of student and teacher views, minus infinity where not compared. Eq. (9).

    No gradient flows into the keys. A view is never compared with itself; the scale is at most 100 (C-23).
    """
    # Half precision would quantise cosines near 1 by as much as the loss tells apart.
    with torch.autocast(queries.device.type, enabled=False):
        cosine = queries.float() @ keys.detach().float().T
        similarity = log_scale.clamp(max=LARGEST_LOG_SCALE).exp() * cosine
    return similarity.masked_fill(~compared, -torch.inf)


def positive_pairs(
    query_factor: Int[Tensor, "N"], key_factor: Int[Tensor, "M"], compared: Bool[Tensor, "N M"]
) -> Bool[Tensor, "N M"]:
    """Compared views that carry the same factor, the content or style of the same volume. Eq. (10)."""
    return (query_factor[:, None] == key_factor[None, :]) & compared


def supervised_contrast(similarity: Float[Tensor, "N M"], positive: Bool[Tensor, "N M"]) -> Float[Tensor, ""]:
    """Mean negative log-probability of a view's positives among all compared with it. Eq. (11)."""
    log_probability = F.log_softmax(similarity, dim=1).masked_fill(~positive, 0.0)
    return -(log_probability.sum(dim=1) / positive.sum(dim=1)).mean()


def swap_contrast(content: Float[Tensor, ""], style: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Contrast of both factors. Eq. (12)."""
    return content + style
