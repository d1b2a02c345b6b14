"""Truth for the swap, where two images of one anatomy exist (ours, not in the paper).

Registered sequences of one patient, or one scan seen by two simulated scanners, show the same content in
two styles. The swap into the second style must then give the second image, and both must have one content.
Both losses have weight 0 unless a recipe has such pairs; docs/departures.md says why they exist.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def aligned_swap_loss(
    swapped: Float[Tensor, "B C X Y Z"], target: Float[Tensor, "B C X Y Z"]
) -> Float[Tensor, ""]:
    """Mean squared error of a swap whose true result is known."""
    return (swapped - target).float().square().mean()


def content_agreement_loss(
    content: Float[Tensor, "B L Dc"], target_content: Float[Tensor, "B L Dc"]
) -> Float[Tensor, ""]:
    """Mean squared distance of the layer-normed content tokens of one anatomy in two styles.

    Symmetric: gradients flow into both. The norm keeps content from agreeing by vanishing.
    """
    width = content.shape[-1:]
    difference = F.layer_norm(content.float(), width) - F.layer_norm(target_content.float(), width)
    return difference.square().mean()
