"""Swap-invariance quadruplet contrast (SiQC, Eqs. 7-12): labels, views, similarities and the loss.

Two volumes i and j and their swaps ij (content of i, style of j) and ji are four views. The content of ij
must be that of i, its style that of j. A supervised contrast pulls each view to the view that shares its
factor and away from the other views it is compared with. In this file a view is a row of a matrix;
`objective.py` decodes and encodes the views.
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
    """Content and style identity of each view; equal numbers mean the same content or style.

    Attributes:
        view: number of the view itself, unique over all processes.
        quadruplet: number of the pair whose four views belong together.
        content, style: number of the volume that the content or style comes from.
        style_domain: domain of that style; each unlabelled volume has a negative number of its own.
    """

    view: Int[Tensor, "N"]
    quadruplet: Int[Tensor, "N"]
    content: Int[Tensor, "N"]
    style: Int[Tensor, "N"]
    style_domain: Int[Tensor, "N"]


def view_labels(domain: Int[Tensor, "B"], partner: Int[Tensor, "B"], rank: int = 0) -> ViewLabels:
    """Identities of 2B views: content ids i, j, i, j and style ids i, j, j, i for a pair. Eq. (7).

    The first B views are the volumes of the batch; the next B are the swaps of each with its partner.

    Args:
        domain: domain of each volume; -1 means unlabelled and counts as a domain of its own.
        rank: rank of the process that holds the batch.
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
    """Return which keys each query is compared with: all but itself, or those of its quadruplet."""
    others = queries.view[:, None] != keys.view[None, :]
    if scope == "quadruplet":
        return others & (queries.quadruplet[:, None] == keys.quadruplet[None, :])
    return others


def compared_styles(
    queries: ViewLabels, keys: ViewLabels, compared: Bool[Tensor, "N M"], negatives: StyleNegatives
) -> Bool[Tensor, "N M"]:
    """Return the compared keys without false style negatives.

    Two scans of one domain share a style, so by default they are not each other's negatives (C-20).
    """
    if negatives == "all":
        return compared
    same_style = queries.style[:, None] == keys.style[None, :]
    same_domain = queries.style_domain[:, None] == keys.style_domain[None, :]
    return compared & (same_style | ~same_domain)


def swap_styles(
    content: Float[Tensor, "B L Dc"], style: Float[Tensor, "B L Ds"], partner: Int[Tensor, "B"]
) -> tuple[Float[Tensor, "B L Dc"], Float[Tensor, "B L Ds"]]:
    """Return the content of each volume and the style that its partner has at the same position.

    Row b is the swap ij of volume b. The swap ji is the partner's row, so no swap is decoded twice. The
    published code joins the kept tokens of both volumes by rank, although tokens of equal rank have different
    positions (C-05).
    """
    return content, style[partner]


def pooled_view(tokens: Float[Tensor, "B L D"]) -> Float[Tensor, "B D"]:
    """Return one unit vector for each view: layer norm of each token, mean over tokens, L2 norm."""
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
    # Half precision rounds cosines near 1 more coarsely than the differences that the loss measures.
    with torch.autocast(queries.device.type, enabled=False):
        cosine = queries.float() @ keys.detach().float().T
        similarity = log_scale.clamp(max=LARGEST_LOG_SCALE).exp() * cosine
    return similarity.masked_fill(~compared, -torch.inf)


def positive_pairs(
    query_factor: Int[Tensor, "N"], key_factor: Int[Tensor, "M"], compared: Bool[Tensor, "N M"]
) -> Bool[Tensor, "N M"]:
    """Positive mask: compared views with the same factor, content or style of one volume. Eq. (8)."""
    return (query_factor[:, None] == key_factor[None, :]) & compared


def pair_log_probability(similarity: Float[Tensor, "N M"]) -> Float[Tensor, "N M"]:
    """Log-softmax of each pair over all views that its query is compared with. Eq. (10)."""
    return F.log_softmax(similarity, dim=1)


def supervised_contrast(similarity: Float[Tensor, "N M"], positive: Bool[Tensor, "N M"]) -> Float[Tensor, ""]:
    """Mean negative log-probability of a view's positives among all compared with it. Eq. (11)."""
    log_probability = pair_log_probability(similarity).masked_fill(~positive, 0.0)
    return -(log_probability.sum(dim=1) / positive.sum(dim=1)).mean()


def swap_contrast(content: Float[Tensor, ""], style: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Contrast of both factors. Eq. (12)."""
    return content + style
