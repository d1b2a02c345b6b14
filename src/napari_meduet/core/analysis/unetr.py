"""Latent UNETR: class scores of voxels from a latent and the pretrained encoder (specification, section 10).

    latent -> encoder -> four taps ─┐
       └──────────────── fused on the latent grid: features -> head -> scores of each voxel

The encoder reads windows of one size. Features are computed window by window and may be blended; the head
reads features of any size. `finetuning.py` trains the network.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from napari_meduet.core.analysis.encoder_sizes import EncoderSizes
from napari_meduet.core.meduet import Encoder
from napari_meduet.core.residual import ResidualBlock
from napari_meduet.core.transformer import initialise

NUM_TAPS = 4  # after blocks 3, 6, 9 and 12 of 12
FUSING_BLOCKS = 2  # residual blocks on the latent grid; each adds one latent voxel to the receptive field


@dataclass(frozen=True, kw_only=True)
class UNETRConfig(EncoderSizes):
    """Sizes of a latent UNETR.

    Attributes:
        num_classes: number of classes with the background.
        features: channels on the latent grid, the input of the head.
        head: `decoder` has the shape of the tokenizer's decoder (P-26), `light` is a small head.
    """

    num_classes: int
    features: int = 64
    head: Literal["decoder", "light"] = "decoder"

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(
                f"num_classes includes the background and must be at least 2; got {self.num_classes}."
            )
        if self.depth < NUM_TAPS:
            raise ValueError(f"depth must be at least {NUM_TAPS}, one block for each tap; got {self.depth}.")
        if self.patch_size != 4:
            raise ValueError(f"patch_size must be 4, as tokens are doubled twice; got {self.patch_size}.")

    @property
    def taps(self) -> tuple[int, ...]:
        """Numbers of blocks after which the encoder is tapped."""
        return tuple(self.depth * (number + 1) // NUM_TAPS for number in range(NUM_TAPS))


class LatentUNETR(nn.Module):
    """Scores of every class in every voxel of a window.

    Args:
        head: maps features of any size to scores; has a `halo` in latent voxels and a `stride`.
    """

    head: Any

    def __init__(self, config: UNETRConfig, head: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        width, features = config.width, config.features
        self.deep = nn.Linear(width, 8 * 2 * features)  # last tap: a token becomes 2^3 positions
        self.middle = nn.Linear(width, 8 * 2 * features)
        self.between = ResidualBlock(2 * features)  # on the grid of half patches
        self.rise = nn.Linear(2 * features, 8 * features)
        # First taps: a token becomes 4^3 positions.
        self.shallow = nn.ModuleList(nn.Linear(width, 64 * features) for _ in range(2))
        self.latent_conv = nn.Conv3d(config.latent_channels, features, 3, padding=1)
        self.fuse = nn.Sequential(*(ResidualBlock(features) for _ in range(FUSING_BLOCKS)))
        self.norm = nn.LayerNorm(features, eps=1e-6)
        self.apply(initialise)
        self.head = head

    def forward(self, latent: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B K 4*X 4*Y 4*Z"]:
        return self.head(self.features(latent))

    def features(self, latent: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B F X Y Z"]:
        """Return the features of one window, the input of the head.

        Raises:
            ValueError: the latent has another shape than the configured windows.
        """
        self.config.check_window(latent.shape[1:])
        first, second, third, last = self._tapped(latent)
        coarse = self.between(self._spread(self.deep(last), 2) + self._spread(self.middle(third), 2))
        fine = rise(self.rise(coarse))
        for layer, tokens in zip(self.shallow, (first, second), strict=True):
            fine = fine + self._spread(layer(tokens), 4)
        fine = F.gelu(fine + rearrange(self.latent_conv(latent), "b f x y z -> b x y z f"))
        return rearrange(self.norm(self.fuse(fine)), "b x y z f -> b f x y z")

    def _tapped(self, latent: Float[Tensor, "B C X Y Z"]) -> list[Float[Tensor, "B L D"]]:
        """Return the tokens of each tap; those of the last tap have passed the encoder's norm."""
        taps = set(self.config.taps[:-1])
        tapped = []

        def keep(number: int, tokens: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
            if number in taps:
                tapped.append(tokens)
            return tokens

        last = self.encoder.transformer(self.encoder.embed(latent), before_block=keep)
        return [*(F.layer_norm(tokens, tokens.shape[-1:]) for tokens in tapped), last]

    def _spread(self, tokens: Float[Tensor, "B L N"], factor: int) -> Float[Tensor, "B X Y Z F"]:
        """Return each token as a cube of `factor` positions along each axis."""
        x, y, z = self.config.grid
        return rearrange(
            tokens,
            "b (x y z) (p q r f) -> b (x p) (y q) (z r) f",
            x=x, y=y, z=z, p=factor, q=factor, r=factor,
        )  # fmt: skip


def rise(features: Float[Tensor, "B X Y Z N"]) -> Float[Tensor, "B 2*X 2*Y 2*Z F"]:
    """Return each position as a cube of two positions along each axis."""
    return rearrange(features, "b x y z (p q r f) -> b (x p) (y q) (z r) f", p=2, q=2, r=2)


def inflated(weight: Float[Tensor, "D P"], channels: int, modalities: int) -> Float[Tensor, "D kP"]:
    """Return the weights of a patch embedding for k modalities, from those for one modality (M-06).

    Each modality gets the same weights divided by k, so k copies of one scan have the embedding of the scan.

    Args:
        channels: latent channels of the tokenizer. In each row, channels run fastest.
    """
    patches = rearrange(weight, "d (v c) -> d v 1 c", c=channels)
    return rearrange(patches.expand(-1, -1, modalities, -1) / modalities, "d v k c -> d (v k c)")
