"""Giving one scan's tokens the style of another (Eq. 26, specification, section 8).

Two scans differ in size, so the style travels as statistics of their body tokens; only on one common grid
can single tokens be exchanged. Decoding what comes out, and the texture that no latent carries, are left to
others.

At strength 0, and where the other statistics are the scan's own, each mode returns exactly what it returns
for the scan's own statistics: the difference of the two renderings is then 0 to the last bit.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from napari_meduet.core.factors import StyleStatistics

STRENGTH_RANGE = (-0.5, 1.5)  # beyond [0, 1] the style is extrapolated, which the caller should say
_SMALLEST_STD = 1e-6  # a style channel that is the same in all tokens has no spread to scale


def blend(
    own: Float[Tensor, "*shape"], other: Float[Tensor, "*shape"], strength: float
) -> Float[Tensor, "*shape"]:
    """Style between the scan's own (strength 0) and the other's (strength 1). Eq. (26).

    Exact at both ends, and everywhere if own and other are equal.
    """
    lowest, highest = STRENGTH_RANGE
    if not lowest <= strength <= highest:
        raise ValueError(f"The strength of a swap lies between {lowest} and {highest}; got {strength}.")
    return torch.lerp(own, other, strength)


def shift_style(
    style: Float[Tensor, "B L Ds"], own: StyleStatistics, other: StyleStatistics, strength: float = 1.0
) -> Float[Tensor, "B L Ds"]:
    """Style tokens moved by the difference of the means; what varies inside the scan stays. The default."""
    step = blend(own.mean, other.mean, strength) - own.mean
    return style + step.unsqueeze(-2).to(style.dtype)


def prototype_style(
    style: Float[Tensor, "B L Ds"], own: StyleStatistics, other: StyleStatistics, strength: float = 1.0
) -> Float[Tensor, "B L Ds"]:
    """The mean style in every token."""
    mean = blend(own.mean, other.mean, strength)
    return mean.unsqueeze(-2).to(style.dtype).expand_as(style)


def adain_style(
    style: Float[Tensor, "B L Ds"], own: StyleStatistics, other: StyleStatistics, strength: float = 1.0
) -> Float[Tensor, "B L Ds"]:
    """Style tokens with the other's mean and spread (AdaIN, Huang and Belongie 2017)."""
    mean = blend(own.mean, other.mean, strength)
    std = blend(own.std, other.std, strength).clamp(min=0)  # extrapolation may pass 0
    gain = (std + _SMALLEST_STD) / (own.std + _SMALLEST_STD)
    moved = (style.float() - own.mean.unsqueeze(-2)) * gain.unsqueeze(-2) + mean.unsqueeze(-2)
    return moved.to(style.dtype)


def token_style(
    style: Float[Tensor, "B L Ds"], other: Float[Tensor, "W M Ds"], strength: float = 1.0
) -> Float[Tensor, "B L Ds"]:
    """Each token's style replaced by the other's at the same place: for scans on one common grid."""
    if style.shape != other.shape:
        raise ValueError(
            f"Mode 'token' exchanges styles place by place, but the grids differ: {tuple(style.shape)} and "
            f"{tuple(other.shape)}. Use 'shift' for scans that are not on one grid."
        )
    return blend(style, other, strength)
