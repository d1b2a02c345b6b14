"""The convolution block that the light tokenizer and the networks of analysis are built of.

Channels come last, (B, X, Y, Z, W), so that norm and linear layers need no turning. Nothing is normalised
over space: what a voxel becomes depends on its neighbourhood alone, and parts with enough overlap have no
seams.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """One look at the 3x3x3 neighbourhood, added to what was known; begins as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.look = nn.Conv3d(width, width, 3, padding=1)
        self.merge = nn.Linear(width, width)
        nn.init.zeros_(self.merge.weight)
        nn.init.zeros_(self.merge.bias)

    def forward(self, features: Tensor) -> Tensor:
        seen = self.norm(features).movedim(-1, 1)  # a channels_last_3d view: no copy
        return features + self.merge(F.gelu(self.look(seen)).movedim(1, -1))
