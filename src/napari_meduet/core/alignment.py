"""Losses for swaps whose true result is known (this project; docs/departures.md).

Registered sequences of one patient show one anatomy in two styles. So does one scan seen by two simulated
scanners. A swap into the second style must then give the second image, and both images must have the same
content. Both losses have weight 0 unless a preset has such pairs.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def aligned_swap_loss(
    swapped: Float[Tensor, "B C X Y Z"], target: Float[Tensor, "B C X Y Z"]
) -> Float[Tensor, ""]:
    """Return the mean squared error of a swap against its true result."""
    return (swapped - target).float().square().mean()


def content_agreement_loss(
    content: Float[Tensor, "B L Dc"], target_content: Float[Tensor, "B L Dc"]
) -> Float[Tensor, ""]:
    """Return the mean squared distance of the layer-normed content tokens of one anatomy in two styles.

    The loss is symmetric: gradients flow into both inputs. The layer norm prevents the trivial solution in
    which all content tokens shrink to zero.
    """
    width = content.shape[-1:]
    difference = F.layer_norm(content.float(), width) - F.layer_norm(target_content.float(), width)
    return difference.square().mean()
