"""Mixed-factor token distillation (Sec. 3.3, Eqs. 4-6): functions of factor tokens and masks.

The student sees a mixture and must recover the factors of the tokens that the mixture hides. The teacher
sees the whole volume. `objective.py` runs both networks.
"""

from jaxtyping import Float
from torch import Tensor


def token_distance(student: Float[Tensor, "B L D"], teacher: Float[Tensor, "B L D"]) -> Float[Tensor, "B L"]:
    """Squared distance of each token to its teacher, per dimension. Eq. (4).

    The teacher is a target: no gradient flows into it.
    """
    return (student.float() - teacher.detach().float()).square().mean(dim=-1)


def factor_distillation(
    distance_i: Float[Tensor, "B L"], distance_j: Float[Tensor, "B L"], mask: Float[Tensor, "B L"]
) -> Float[Tensor, ""]:
    """Mean distance over the hidden tokens of both volumes. Eq. (5).

    Every token is hidden in exactly one of the two volumes, so the mean is over all L.

    Args:
        mask: 1 where the mixture shows the token of volume j and hides that of volume i; 0 elsewhere.
    """
    hidden = distance_i * mask + distance_j * (1 - mask)  # (B, L)
    return hidden.mean()


def mixed_factor_distillation(
    content: Float[Tensor, ""], style: Float[Tensor, ""], content_weight: float, scale: float
) -> Float[Tensor, ""]:
    """Distillation of both factors, with a smaller weight on content. Eq. (6).

    Args:
        content_weight: lambda_c, which applies to content only.
        scale: 1 is the paper's text; 2 is what its code computes, one mean for each volume (C-16).
    """
    return scale * (content_weight * content + style)
