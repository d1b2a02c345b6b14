"""Domain losses that separate content from style (Eqs. 2-3): networks first, losses below.

A classifier reads the domain from style tokens. A second one reads it from content tokens behind a gradient
reversal, so the content tokens learn to hide the domain. `objective.py` chooses the tokens.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from napari_meduet.core.demixing import PairReduction


class ReverseGradient(torch.autograd.Function):
    """Identity in the forward pass, sign change of the gradient in the backward pass (M-18).

    Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML 2015.
    """

    @staticmethod
    def forward(ctx: Any, features: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return -gradients[0]


class DomainClassifier(nn.Sequential):
    """Three linear layers from a pooled factor to one logit per domain (M-18)."""

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
    labelled_fraction: Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of one factor's domain, mean over the labelled volumes. Eq. (2).

    Args:
        domain: domain of each volume; -1 means unlabelled, and the volume is left out. The loss is 0 if no
            volume is labelled.
        labelled_fraction: fraction of labelled volumes in the whole batch, if these rows are one of several
            equal shards of it. The losses of all shards then average to the loss of the whole batch, however
            the labelled volumes are distributed. None: these rows are the whole batch.
    """
    total = F.cross_entropy(logits.float(), domain, ignore_index=-1, reduction="sum")
    if labelled_fraction is None:
        labelled_fraction = (domain >= 0).float().mean()
    num_labelled = labelled_fraction * domain.shape[0]
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
