"""Style augmentation: training latents in the styles of other sites (specification, section 10, Table 12).

A prototype is the mean style of a domain (factors.py, Eq. 25). A strength mixes it with the style of the crop
(swapping.py, Eq. 26). This file decodes the crop with the mixed style (Eq. 27) and stores the prototypes.
`finetuning.py` trains with the result.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from napari_meduet.core.meduet import MeDUET

FEW_LABELS = 3  # scans; with fewer, the one-shot column of Table 12 applies, whatever fraction they are


@dataclass(frozen=True, kw_only=True)
class StyleAugmentation:
    """Amount of style augmentation in a training (Table 12).

    Attributes:
        probability: probability that a row is also used in another style (p_aug).
        strengths: lowest and highest strength, drawn uniformly (α).
        weight: weight of the task loss in the other style (λ_aug).
        consistency: weight of the consistency of both predictions (λ_cons).
    """

    probability: float = 0.9
    strengths: tuple[float, float] = (0.4, 0.8)
    weight: float = 0.4
    consistency: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be between 0 and 1; got {self.probability}.")
        low, high = self.strengths
        if not 0 <= low <= high <= 1:
            raise ValueError(
                f"strengths must run from a lower to a higher value between 0 and 1; got {low} to {high}."
            )
        if min(self.weight, self.consistency) < 0:
            raise ValueError(
                "weight and consistency scale losses and cannot be negative; got "
                f"{self.weight} and {self.consistency}."
            )

    @classmethod
    def for_labels(cls, num_labelled: int, fraction: float) -> "StyleAugmentation":
        """Return the column of Table 12 for a number of labelled scans.

        Between two columns, the one with fewer labels is used.

        Args:
            fraction: labelled scans as a fraction of all scans.
        """
        if num_labelled < FEW_LABELS:
            return ONE_SHOT
        return next(preset for least, preset in ((1.0, ALL), (0.5, HALF), (0.0, TENTH)) if fraction >= least)


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
    """Latents with their own content, and their style moved towards prototypes. Eq. (27).

    As in the swap, the difference of two decodings is added to the latent. Detail that the network cannot
    decode therefore remains, and at strength 0 the latent does not change. No gradient flows.
    """
    with torch.no_grad():
        content, style = meduet.encode(latent)
        own = style.mean(dim=1)  # (B, Ds)
        step = torch.lerp(own, prototype.to(own.dtype), strength.unsqueeze(1)) - own
        moved = meduet.decode(content, style + step.unsqueeze(1))
        return latent + (moved - meduet.decode(content, style))


class StyleBank(nn.Module):
    """Style prototypes for augmentation.

    Attributes:
        styles: mean style of each prototype, (N, Ds).
        modality: modality number of each prototype, (N,). Crops get styles of their own modality only.
    """

    styles: Float[Tensor, "N Ds"]
    modality: Int[Tensor, " N"]

    def __init__(self, styles: Float[Tensor, "N Ds"], modality: Int[Tensor, " N"]) -> None:
        super().__init__()
        self.register_buffer("styles", styles.clone())
        self.register_buffer("modality", modality.clone())

    def drawn(self, modality: Int[Tensor, " B"], draw: Float[Tensor, " B"]) -> Float[Tensor, "B Ds"]:
        """Return a style of its own modality for each row.

        Args:
            draw: uniform random numbers between 0 and 1.
        """
        is_usable = (self.modality == modality.unsqueeze(1)).float()  # (B, N)
        rank = (draw * is_usable.sum(dim=1)).floor()  # among the prototypes of the modality
        chosen = (is_usable.cumsum(dim=1) > rank.unsqueeze(1)).float().argmax(dim=1)
        return self.styles[chosen]
