"""A U-Net with a residual encoder and time conditioning, for pretexts on voxels (specification, section 11).

The six resolutions, blocks and widths are those of nnU-Net's medium residual preset (Isensee et al. 2024):
stages of residual blocks on the way down, a transposed conv and one block on the way up. Each block receives
the time after its first norm.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from napari_meduet.core.pretexts.time_conditioning import TimeEmbedding, VolumeFiLM

BLOCK = 16  # voxels; masks consist of cubes of 24 mm, one token of a latent (specification, section 11)


@dataclass(frozen=True, kw_only=True)
class ResidualUNetConfig:
    """Sizes of the network; the defaults are those of nnU-Net's medium residual preset at 96^3 voxels."""

    grid: tuple[int, int, int] = (6, 6, 6)  # blocks of 16^3 voxels along each axis
    channels: int = 1
    widths: tuple[int, ...] = (32, 64, 128, 256, 320, 320)
    num_blocks: tuple[int, ...] = (1, 3, 4, 6, 6, 6)

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.num_blocks):
            raise ValueError(
                f"widths and num_blocks must have the same length; got {len(self.widths)} and "
                f"{len(self.num_blocks)}."
            )
        smallest = 2 ** (len(self.widths) - 1)
        if any(BLOCK * tokens % smallest for tokens in self.grid):
            raise ValueError(
                f"A grid of {self.grid} blocks of {BLOCK} voxels cannot be halved "
                f"{len(self.widths) - 1} times. Choose a larger grid or fewer widths."
            )

    @property
    def num_tokens(self) -> int:
        """Number of blocks that a mask shows or hides."""
        x, y, z = self.grid
        return x * y * z

    @property
    def patch_size(self) -> int:
        """Voxels of a block along each axis."""
        return BLOCK

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Channels and voxels of the crops that the network reads."""
        x, y, z = (BLOCK * tokens for tokens in self.grid)
        return self.channels, x, y, z


class ResidualUNet(nn.Module):
    """Maps a volume and a time to a volume of the same size."""

    def __init__(self, config: ResidualUNetConfig) -> None:
        super().__init__()
        self.config = config
        self.time = TimeEmbedding()
        widths = (config.widths[0], *config.widths)
        self.first = nn.Conv3d(config.channels, config.widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            Stage(before, width, num_blocks, stride=1 if number == 0 else 2)
            for number, ((before, width), num_blocks) in enumerate(
                zip(pairwise(widths), config.num_blocks, strict=True)
            )
        )
        upwards = config.widths[::-1]
        self.upsample = nn.ModuleList(
            nn.ConvTranspose3d(below, width, 2, stride=2) for below, width in pairwise(upwards)
        )
        self.up = nn.ModuleList(ResidualBlock(2 * width, width) for width in upwards[1:])
        self.last = nn.Conv3d(config.widths[0], config.channels, 1)

    def forward(
        self, volume: Float[Tensor, "B C X Y Z"], time: Float[Tensor, "B"]
    ) -> Float[Tensor, "B C X Y Z"]:
        time_features = self.time(time)
        features, skips = self.first(volume), []
        for stage in self.down:
            features = stage(features, time_features)
            skips.append(features)
        for upsample, block, skip in zip(self.upsample, self.up, skips[-2::-1], strict=True):
            features = block(torch.cat([upsample(features), skip], dim=1), time_features)
        return self.last(features)


class Stage(nn.Module):
    """Residual blocks at one resolution; the first block changes the resolution."""

    def __init__(self, width_in: int, width: int, num_blocks: int, stride: int) -> None:
        super().__init__()
        first = ResidualBlock(width_in, width, stride)
        self.blocks = nn.ModuleList([first, *(ResidualBlock(width, width) for _ in range(num_blocks - 1))])

    def forward(
        self, features: Float[Tensor, "B Din X Y Z"], time: Float[Tensor, "B T"]
    ) -> Float[Tensor, "B Dout P Q R"]:
        for block in self.blocks:
            features = block(features, time)
        return features


class ResidualBlock(nn.Module):
    """Two convs with instance norm and time conditioning, beside a skip connection."""

    def __init__(self, width_in: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(width_in, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.InstanceNorm3d(width, affine=True)
        self.film = VolumeFiLM(width)
        self.conv2 = nn.Conv3d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.InstanceNorm3d(width, affine=True)
        keeps_shape = width_in == width and stride == 1
        self.skip = nn.Identity() if keeps_shape else nn.Conv3d(width_in, width, 1, stride=stride)

    def forward(
        self, features: Float[Tensor, "B Din X Y Z"], time: Float[Tensor, "B T"]
    ) -> Float[Tensor, "B Dout P Q R"]:
        inner = F.leaky_relu(self.film(self.norm1(self.conv1(features)), time))
        return F.leaky_relu(self.norm2(self.conv2(inner)) + self.skip(features))
