"""From features on the latent grid to class scores on the voxels: the light head (specification, section 10).

The other head has the shape of the tokenizer's decoder, and is the business of tokenizers/heads.py. A head
reads features of any size and looks `halo` latent voxels around each place, so a whole scan can be decoded
part by part.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from napari_meduet.core.residual import ResidualBlock
from napari_meduet.core.transformer import initialise

# Of what the last layer writes: at an AdamW rate that suits the rest, scores grow soon enough.
SCORE_GAIN = 5.0


class HeadStage(NamedTuple):
    """A step of a head: features of the latent grid in, features of that grid or at last scores out.

    Attributes:
        reach: latent voxels around a place that it looks at; those of all stages make up the head's halo.
    """

    compute: Callable[[Tensor], Tensor]
    reach: int


class LightHead(nn.Module):
    """Two doublings by transposed convolution, with a look around between them.

    Attributes:
        halo: latent voxels around a place that its scores depend on.
        stride: voxels per latent voxel, along each axis.
    """

    halo, stride = 1, 4

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        half = features // 2
        self.first = nn.ConvTranspose3d(features, half, 2, stride=2)
        self.look = ResidualBlock(half)
        self.second = nn.ConvTranspose3d(half, num_classes, 2, stride=2)
        self.apply(initialise)

    @property
    def stages(self) -> list[HeadStage]:
        """Its one step: between its doublings there are more numbers than it is worth to keep."""
        return [HeadStage(self.forward, self.halo)]

    def forward(self, features: Float[Tensor, "B F X Y Z"]) -> Float[Tensor, "B K 4*X 4*Y 4*Z"]:
        """Class scores; a tokenizer of stride 4 is meant."""
        finer = rearrange(F.gelu(self.first(features)), "b f x y z -> b x y z f")
        return SCORE_GAIN * self.second(rearrange(self.look(finer), "b x y z f -> b f x y z"))
