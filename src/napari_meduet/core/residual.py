"""Residual convolution block of the wavelet tokenizer and the segmentation networks.

Channels come last, (B, X, Y, Z, W), so layer norm and linear layers need no transposition. No norm runs over
space: each output voxel depends on its neighbourhood only, so tiles with enough overlap have no seams.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Layer norm, 3x3x3 conv, GELU and projection beside a skip connection; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.conv = nn.Conv3d(width, width, 3, padding=1)
        self.proj = nn.Linear(width, width)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, features: Float[Tensor, "B X Y Z W"]) -> Float[Tensor, "B X Y Z W"]:
        normed = self.norm(features).movedim(-1, 1)  # a channels_last_3d view: no copy
        return features + self.proj(F.gelu(self.conv(normed)).movedim(1, -1))
