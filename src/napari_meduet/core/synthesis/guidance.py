"""Guidance by two factors: how far a prediction moves towards content and towards style (Eqs. 21-24).

A weight of 0 leaves the conditional model as it is in every form; the text of the paper calls that
unconditional, which its own formula contradicts. All latent channels are guided.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Form = Literal["paper", "compositional", "nested"]


def content_push(both: Float[Tensor, "B *S"], style_only: Float[Tensor, "B *S"]) -> Float[Tensor, "B *S"]:
    """e_cs - e_ns: what the content adds where the style is known. Eq. (22)."""
    return both - style_only


def style_push(both: Float[Tensor, "B *S"], content_only: Float[Tensor, "B *S"]) -> Float[Tensor, "B *S"]:
    """e_cs - e_cn: what the style adds where the content is known. Eq. (23)."""
    return both - content_only


def dual_guidance(
    both: Float[Tensor, "B *S"],
    style_only: Float[Tensor, "B *S"],
    content_only: Float[Tensor, "B *S"],
    content_weight: float,
    style_weight: float,
) -> Float[Tensor, "B *S"]:
    """e_cs + w_c (e_cs - e_ns) + w_s (e_cs - e_cn), the form of the paper. Eq. (24)."""
    content, style = content_push(both, style_only), style_push(both, content_only)
    return both + content_weight * content + style_weight * style


def compositional_guidance(
    both: Float[Tensor, "B *S"],
    style_only: Float[Tensor, "B *S"],
    content_only: Float[Tensor, "B *S"],
    neither: Float[Tensor, "B *S"],
    content_weight: float,
    style_weight: float,
) -> Float[Tensor, "B *S"]:
    """e_cs + w_c (e_cn - e_nn) + w_s (e_ns - e_nn): each factor pushes as it would alone."""
    return both + content_weight * (content_only - neither) + style_weight * (style_only - neither)


def nested_guidance(
    both: Float[Tensor, "B *S"],
    content_only: Float[Tensor, "B *S"],
    neither: Float[Tensor, "B *S"],
    content_weight: float,
    style_weight: float,
) -> Float[Tensor, "B *S"]:
    """e_cs + w_c (e_cn - e_nn) + w_s (e_cs - e_cn): content first, then style given the content."""
    return both + content_weight * (content_only - neither) + style_weight * style_push(both, content_only)


def rescaled(
    guided: Float[Tensor, "B *S"], both: Float[Tensor, "B *S"], share: float
) -> Float[Tensor, "B *S"]:
    """The guided prediction, moved a share of the way to the spread that the conditional one has.

    Guidance makes predictions larger, and samples too contrasted (Lin et al. 2023).
    """
    axes = tuple(range(1, both.ndim))
    factor = both.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True).clamp(min=1e-12)
    return torch.lerp(guided, guided * factor, share)
