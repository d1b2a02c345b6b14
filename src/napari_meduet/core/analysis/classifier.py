"""Which class a scan belongs to: pooled features of the pretrained encoder (specification, section 10)."""

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
    """Sizes of a classifier."""

    num_classes: int

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(f"num_classes must be at least 2; got {self.num_classes}.")


class ScanClassifier(nn.Module):
    """Class scores of windows of a scan; a scan's are the mean over its windows."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.scores = nn.Linear(config.width, config.num_classes)
        self.apply(initialise)

    def forward(
        self, latent: Float[Tensor, "B C X Y Z"], coverage: Float[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B K"]:
        """Scores of each window.

        Args:
            coverage: share of body in each token, by which tokens are pooled (M-21). None: all alike.
        """
        tokens = self.encoder(latent)  # (B, L, D)
        return self.scores(pooled_factor(tokens, coverage).to(tokens.dtype))


def scan_scores(scores: Float[Tensor, "N K"], weight: Float[Tensor, " N"]) -> Float[Tensor, " K"]:
    """Scores of a scan from those of its windows, each with its weight (its share of body)."""
    return torch.einsum("nk,n->k", scores, weight / weight.sum())
