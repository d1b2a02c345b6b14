"""The light segmentation head: features on the latent grid become class scores of voxels (section 10).

A head reads features of any size. Its scores depend on `halo` latent voxels around each position, so a scan
can be decoded in parts. `tokenizers/heads.py` holds the other head, which has the shape of the tokenizer's
decoder.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from napari_meduet.core.residual import ResidualBlock
from napari_meduet.core.transformer import initialise

# Factor on the output of the last layer. AdamW moves each weight by about the learning rate per step, so
# without the gain the scores grow too slowly in short trainings.
SCORE_GAIN = 5.0


class HeadStage(NamedTuple):
    """One stage of a head. Stages read and write features; the last stage writes scores.

    Attributes:
        compute: function of the features.
        reach: receptive field in latent voxels around a position. The sum over all stages is the head's halo.
    """

    compute: Callable[[Tensor], Tensor]
    reach: int


class LightHead(nn.Module):
    """Two transposed convs that double the resolution, with a residual block between them.

    Attributes:
        halo: number of latent voxels around a position on which its scores depend.
        stride: voxels per latent voxel along each axis.
    """

    halo, stride = 1, (4, 4, 4)

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        half = features // 2
        self.first = nn.ConvTranspose3d(features, half, 2, stride=2)
        self.block = ResidualBlock(half)
        self.second = nn.ConvTranspose3d(half, num_classes, 2, stride=2)
        self.apply(initialise)

    @property
    def stages(self) -> list[HeadStage]:
        """The single stage of this head; its intermediate features are too large to store."""
        return [HeadStage(self.forward, self.halo)]

    def forward(self, features: Float[Tensor, "B F X Y Z"]) -> Float[Tensor, "B K 4*X 4*Y 4*Z"]:
        """Return class scores of voxels, for a tokenizer of stride 4."""
        finer = rearrange(F.gelu(self.first(features)), "b f x y z -> b x y z f")
        return SCORE_GAIN * self.second(rearrange(self.block(finer), "b x y z f -> b f x y z"))
