"""Classification of scans from pooled features of the pretrained encoder (specification, section 10)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from napari_meduet.core.analysis.encoder_sizes import EncoderSizes
from napari_meduet.core.factors import pooled_factor
from napari_meduet.core.meduet import Encoder
from napari_meduet.core.transformer import initialise


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(EncoderSizes):
    """Sizes of a scan classifier."""

    num_classes: int

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(f"num_classes must be at least 2; got {self.num_classes}.")


class ScanClassifier(nn.Module):
    """Class scores of the windows of a scan; `scan_scores` averages them."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.scores = nn.Linear(config.width, config.num_classes)
        self.apply(initialise)

    def forward(
        self, latent: Float[Tensor, "B C X Y Z"], coverage: Float[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B K"]:
        """Return the class scores of each window.

        Args:
            coverage: fraction of body in each token, the weight of the token in the mean (M-21). None: equal
                weights.
        """
        tokens = self.encoder(latent)  # (B, L, D)
        return self.scores(pooled_factor(tokens, coverage).to(tokens.dtype))


def scan_scores(scores: Float[Tensor, "N K"], weight: Float[Tensor, " N"]) -> Float[Tensor, " K"]:
    """Return the scores of a scan: the mean over its windows, weighted by their body coverage."""
    return torch.einsum("nk,n->k", scores, weight / weight.sum())
