"""Content without the domain, style with it (Eqs. 2-3).

A classifier must read the domain from style tokens; through gradient reversal, content tokens must not let
it. The networks are at the top, the losses below; which tokens they see is objective.py's business.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

PairReduction = Literal["mean", "sum"]


class ReverseGradient(torch.autograd.Function):
    """The identity forwards; backwards the gradient changes sign (Ganin and Lempitsky 2015, M-18)."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


class DomainClassifier(nn.Sequential):
    """Three layers from a pooled factor to one logit per domain (M-18)."""

    def __init__(self, width: int, num_domains: int) -> None:
        super().__init__(
            nn.Linear(width, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, num_domains),
        )


def domain_cross_entropy(
    logits: Float[Tensor, "B K"],
    domain: Int[Tensor, "B"],
    labelled_share: Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of one factor's domain, mean over the labelled volumes. Eq. (2).

    Args:
        domain: -1 where unlabelled: such a volume is left out. Without any labelled volume the loss is 0.
        labelled_share: of the whole batch of which these rows are an equal part. Divided by it, the losses of
            all parts average to that of the whole, however the labelled volumes lie in them. None: these
            rows are the whole batch.
    """
    total = F.cross_entropy(logits.float(), domain, ignore_index=-1, reduction="sum")
    if labelled_share is None:
        labelled_share = (domain >= 0).float().mean()
    num_labelled = labelled_share * domain.shape[0]
    return total / torch.where(num_labelled > 0, num_labelled, 1.0)


def domain_loss(
    content_i: Float[Tensor, ""],
    content_j: Float[Tensor, ""],
    style_i: Float[Tensor, ""],
    style_j: Float[Tensor, ""],
    reduction: PairReduction,
) -> Float[Tensor, ""]:
    """Domain loss of content, adversarial, and of style. Eq. (3).

    Args:
        reduction: over the two mixed volumes: `mean` (C-09) or `sum` (the paper's text).
    """
    total = content_i + content_j + style_i + style_j
    return total / 2 if reduction == "mean" else total
