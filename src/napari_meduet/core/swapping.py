"""Style modes of a swap: give the tokens of one scan the style of another (Eq. 26, specification, section 8).

Two scans differ in size, so the style is transferred as statistics of body tokens. Only scans on a common
grid can exchange single tokens. `meduet.py` decodes the result; `texture.py` handles noise and sharpness,
which no latent contains.

At strength 0, and if the other statistics are the scan's own, each mode returns exactly what it returns for
the scan's own statistics. The difference of the two decodings is then 0 to the last bit.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from napari_meduet.core.factors import StyleStatistics
from napari_meduet.core.options import STRENGTH_RANGE

_SMALLEST_STD = 1e-6  # avoids 0 / 0 for a style channel that is constant over all tokens


def blend(
    own: Float[Tensor, "*shape"], other: Float[Tensor, "*shape"], strength: float
) -> Float[Tensor, "*shape"]:
    """Style between the scan's own (strength 0) and the other's (strength 1). Eq. (26).

    The result is exact at both ends, and at every strength if own and other are equal.

    Examples:
        >>> blend(torch.tensor([0.0]), torch.tensor([2.0]), strength=0.25)
        tensor([0.5000])
    """
    lowest, highest = STRENGTH_RANGE
    if not lowest <= strength <= highest:
        raise ValueError(f"The strength of a swap must be from {lowest} to {highest}; got {strength}.")
    return torch.lerp(own, other, strength)


def shift_style(
    style: Float[Tensor, "B L Ds"], own: StyleStatistics, other: StyleStatistics, strength: float = 1.0
) -> Float[Tensor, "B L Ds"]:
    """Return style tokens shifted by the difference of the means; the default mode.

    Differences between the tokens of the scan are kept.

    Examples:
        >>> from napari_meduet.core.factors import style_statistics
        >>> style, other_style = torch.zeros(1, 216, 2), torch.ones(1, 216, 2)
        >>> own, other = style_statistics(style), style_statistics(other_style)
        >>> shift_style(style, own, other, strength=0.5)[0, 0]
        tensor([0.5000, 0.5000])
    """
    step = blend(own.mean, other.mean, strength) - own.mean
    return style + step.unsqueeze(-2).to(style.dtype)


def prototype_style(
    style: Float[Tensor, "B L Ds"], own: StyleStatistics, other: StyleStatistics, strength: float = 1.0
) -> Float[Tensor, "B L Ds"]:
    """Return the mean style in every token."""
    mean = blend(own.mean, other.mean, strength)
    return mean.unsqueeze(-2).to(style.dtype).expand_as(style)


def adain_style(
    style: Float[Tensor, "B L Ds"], own: StyleStatistics, other: StyleStatistics, strength: float = 1.0
) -> Float[Tensor, "B L Ds"]:
    """Return style tokens with the mean and std of the other scan (AdaIN, Huang and Belongie 2017)."""
    mean = blend(own.mean, other.mean, strength)
    std = blend(own.std, other.std, strength).clamp(min=0)  # extrapolation may give a negative std
    gain = (std + _SMALLEST_STD) / (own.std + _SMALLEST_STD)
    moved = (style.float() - own.mean.unsqueeze(-2)) * gain.unsqueeze(-2) + mean.unsqueeze(-2)
    return moved.to(style.dtype)


def token_style(
    style: Float[Tensor, "B L Ds"], other: Float[Tensor, "W M Ds"], strength: float = 1.0
) -> Float[Tensor, "B L Ds"]:
    """Return each token's style mixed with the other scan's at the same position, on one common grid."""
    if style.shape != other.shape:
        raise ValueError(
            f"Mode 'token' exchanges styles token by token, but the grids differ: {tuple(style.shape)} and "
            f"{tuple(other.shape)}. Use mode 'shift' for scans on different grids."
        )
    return blend(style, other, strength)
