"""Guidance by two factors: how far a prediction moves towards content and towards style (Eqs. 21-24).

A weight of 0 gives the conditional model in every form. The text of the paper calls a weight of 0
unconditional, which contradicts its own formula. Guidance acts on all latent channels. `guided.py` evaluates
the predictions that these functions combine.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def content_push(both: Float[Tensor, "B *S"], style_only: Float[Tensor, "B *S"]) -> Float[Tensor, "B *S"]:
    """Return e_cs - e_ns, the effect of the content when the style is known."""
    return both - style_only


def style_push(both: Float[Tensor, "B *S"], content_only: Float[Tensor, "B *S"]) -> Float[Tensor, "B *S"]:
    """Return e_cs - e_cn, the effect of the style when the content is known."""
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
    """Return e_cs + w_c (e_cn - e_nn) + w_s (e_ns - e_nn): each factor acts as if it were alone."""
    return both + content_weight * (content_only - neither) + style_weight * (style_only - neither)


def nested_guidance(
    both: Float[Tensor, "B *S"],
    content_only: Float[Tensor, "B *S"],
    neither: Float[Tensor, "B *S"],
    content_weight: float,
    style_weight: float,
) -> Float[Tensor, "B *S"]:
    """Return e_cs + w_c (e_cn - e_nn) + w_s (e_cs - e_cn): content first, then style given the content."""
    return both + content_weight * (content_only - neither) + style_weight * style_push(both, content_only)


def rescaled(
    guided: Float[Tensor, "B *S"], both: Float[Tensor, "B *S"], fraction: float
) -> Float[Tensor, "B *S"]:
    """Return the guided prediction with its std moved towards that of the conditional prediction.

    Guidance increases the std of predictions, and samples then have too much contrast (Lin et al. 2023).

    Args:
        fraction: 0 changes nothing, 1 gives the std of the conditional prediction.
    """
    axes = tuple(range(1, both.ndim))
    factor = both.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True).clamp(min=1e-12)
    return torch.lerp(guided, guided * factor, fraction)
