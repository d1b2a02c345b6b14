"""Training latents in the styles of other sites (specification, section 10, Eqs. 25-27, Table 12).

A prototype is the mean style of a domain (factors.py, Eq. 25); a strength mixes it with the crop's own
(swapping.py, Eq. 26); here the crop is decoded with what came out. What is learnt from it is finetuning.py's
business.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from napari_meduet.core.meduet import MeDUET

FEW_LABELS = 3  # scans; fewer are the column for one shot, whatever share of all they are


@dataclass(frozen=True, kw_only=True)
class StyleAugmentation:
    """How much of a training is done in other styles (Table 12).

    Attributes:
        probability: of a row to be shown in another style as well (p_aug).
        strengths: between which the strength is drawn (α).
        weight: of the task's loss in the other style (λ_aug).
        consistency: weight of the agreement of both predictions (λ_cons).
    """

    probability: float = 0.9
    strengths: tuple[float, float] = (0.4, 0.8)
    weight: float = 0.4
    consistency: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability lies between 0 and 1; got {self.probability}.")
        low, high = self.strengths
        if not 0 <= low <= high <= 1:
            raise ValueError(f"strengths run from one to a higher, between 0 and 1; got {low} to {high}.")
        if min(self.weight, self.consistency) < 0:
            raise ValueError("weight and consistency scale losses and cannot be negative.")

    @classmethod
    def for_labels(cls, num_labelled: int, share: float) -> "StyleAugmentation":
        """The column of Table 12 for so many labelled scans, which are this share of all that could be.

        Between two columns the one with fewer labels is taken.
        """
        if num_labelled < FEW_LABELS:
            return ONE_SHOT
        return next(preset for least, preset in ((1.0, ALL), (0.5, HALF), (0.0, TENTH)) if share >= least)


ONE_SHOT = StyleAugmentation()
TENTH = StyleAugmentation(probability=0.8)
HALF = StyleAugmentation(probability=0.6, strengths=(0.3, 0.6))
ALL = StyleAugmentation(probability=0.3, strengths=(0.2, 0.5))


def augmented_latent(
    meduet: MeDUET,
    latent: Float[Tensor, "B C X Y Z"],
    prototype: Float[Tensor, "B Ds"],
    strength: Float[Tensor, " B"],
) -> Float[Tensor, "B C X Y Z"]:
    """The latents with their own content, their style moved towards prototypes. Eq. (27).

    As in the swap, the difference of two decodings is added, so what the network cannot decode stays in the
    latent; at strength 0 it comes back as it was. No gradient flows.
    """
    with torch.no_grad():
        content, style = meduet.encode(latent)
        own = style.mean(dim=1)  # (B, Ds)
        step = torch.lerp(own, prototype.to(own.dtype), strength.unsqueeze(1)) - own
        moved = meduet.decode(content, style + step.unsqueeze(1))
        return latent + (moved - meduet.decode(content, style))


class StyleBank(nn.Module):
    """Prototypes that crops may be shown in.

    Attributes:
        styles: (N, Ds).
        modality: (N,), of each: crops get styles of their own modality.
    """

    styles: Float[Tensor, "N Ds"]
    modality: Int[Tensor, " N"]

    def __init__(self, styles: Float[Tensor, "N Ds"], modality: Int[Tensor, " N"]) -> None:
        super().__init__()
        self.register_buffer("styles", styles.clone())
        self.register_buffer("modality", modality.clone())

    def drawn(self, modality: Int[Tensor, " B"], draw: Float[Tensor, " B"]) -> Float[Tensor, "B Ds"]:
        """A style of its own modality for each row, by a number drawn between 0 and 1."""
        is_known = (self.modality == modality.unsqueeze(1)).float()  # (B, N)
        place = (draw * is_known.sum(dim=1)).floor()  # among those of the modality
        chosen = (is_known.cumsum(dim=1) > place.unsqueeze(1)).float().argmax(dim=1)
        return self.styles[chosen]
