"""Segmentation heads with the shape of a tokenizer's decoder (P-26).

The decoder itself writes one channel, masks have one for each class. So a head repeats the decoder but for
its two ends: it reads features of the latent grid instead of a latent, and writes class scores instead of
grey values. What lies between has the decoder's shapes, and may begin with its weights (`start_head`).
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from napari_meduet.core.analysis.heads import SCORE_GAIN, HeadStage, LightHead
from napari_meduet.core.analysis.unetr import UNETRConfig
from napari_meduet.core.residual import ResidualBlock
from napari_meduet.tokenizers.maisi import MaisiConfig, MaisiTokenizer, maisi_network
from napari_meduet.tokenizers.registry import sizes_of
from napari_meduet.tokenizers.wavelet import STRIDE, WaveletConfig, WaveletTokenizer, haar_matrix

HAAR_VALUES = STRIDE**3
LIGHT_STRIDE = 4


class WaveletHead(nn.Module):
    """The wavelet tokenizer's decoder with 64 Haar coefficients for each class.

    Attributes:
        halo: latent voxels around a place that its scores depend on.
        stride: voxels per latent voxel, along each axis.
    """

    stride = STRIDE
    haar: Float[Tensor, "64 64"]

    def __init__(self, sizes: WaveletConfig, features: int, num_classes: int) -> None:
        super().__init__()
        self.halo = sizes.decoder_blocks
        haar = haar_matrix()
        # A coefficient of 1 changes the scores it reaches by 1.
        self.register_buffer("haar", haar / haar.abs().amax(dim=1, keepdim=True), persistent=False)
        self.widen = nn.Linear(features, sizes.width)
        self.decoder = nn.Sequential(*[ResidualBlock(sizes.width) for _ in range(sizes.decoder_blocks)])
        self.coefficients = nn.Linear(sizes.width, HAAR_VALUES * num_classes)
        nn.init.normal_(self.coefficients.weight, std=0.01)  # no class is preferred at first
        nn.init.zeros_(self.coefficients.bias)

    @property
    def stages(self) -> list[HeadStage]:
        """Its steps; whoever takes a large scan through them one by one computes nothing twice."""
        looks = [HeadStage(partial(_channels_first, block), 1) for block in self.decoder]
        return [HeadStage(partial(_channels_first, self.widen), 0), *looks, HeadStage(self._scores, 0)]

    def forward(self, features: Float[Tensor, "B F x y z"]) -> Float[Tensor, "B K X Y Z"]:
        for stage in self.stages:
            features = stage.compute(features)
        return features

    def _scores(self, wide: Float[Tensor, "B W x y z"]) -> Float[Tensor, "B K X Y Z"]:
        coefficients = SCORE_GAIN * self.coefficients(wide.movedim(1, -1))
        cubes = coefficients.unflatten(-1, (-1, HAAR_VALUES)) @ self.haar  # (B, x, y, z, K, 64)
        return rearrange(cubes, "b x y z k (p q r) -> b k (x p) (y q) (z r)", p=STRIDE, q=STRIDE, r=STRIDE)

    @staticmethod
    def decoder_of(tokenizer: WaveletTokenizer) -> nn.Module:
        return tokenizer.decoder


class MaisiHead(nn.Module):
    """The decoder of MAISI's autoencoder between other ends. It normalises over space, as that one does."""

    halo = MaisiTokenizer.halo

    def __init__(self, sizes: MaisiConfig, features: int, num_classes: int) -> None:
        super().__init__()
        self.stride = sizes.stride
        network = maisi_network(replace(sizes, latent_channels=features), out_channels=num_classes)
        self.decoder = network.decoder
        self.stride = sizes.stride

    def forward(self, features: Float[Tensor, "B F x y z"]) -> Float[Tensor, "B K X Y Z"]:
        return SCORE_GAIN * self.decoder(features)

    @property
    def stages(self) -> list[HeadStage]:
        """Its one step: it changes the grid more than once."""
        return [HeadStage(self.forward, self.halo)]

    @staticmethod
    def decoder_of(tokenizer: MaisiTokenizer) -> nn.Module:
        return tokenizer.network.decoder


def _channels_first(layer: nn.Module, features: Float[Tensor, "B V x y z"]) -> Float[Tensor, "B W x y z"]:
    """A layer that has channels last, for features that have them first."""
    return layer(features.movedim(1, -1)).movedim(-1, 1)


HEADS = {"wavelet": (WaveletHead, WaveletTokenizer), "maisi": (MaisiHead, MaisiTokenizer)}


def build_head(config: UNETRConfig, tokenizer: str, sizes: Mapping[str, Any]) -> nn.Module:
    """The head of a latent UNETR on the latents of this tokenizer.

    Args:
        tokenizer, sizes: its name and configuration, as on a model card.

    Raises:
        ValueError: the tokenizer is unknown, or the light head does not reach its voxels.
    """
    known = sizes_of(tokenizer, sizes)
    if config.head == "decoder":
        return HEADS[tokenizer][0](known, config.features, config.num_classes)
    if isinstance(known, MaisiConfig) and known.stride != LIGHT_STRIDE:
        raise ValueError(
            f"The light head makes {LIGHT_STRIDE} voxels of a latent voxel, but this tokenizer "
            f"{known.stride}. Choose the decoder head."
        )
    return LightHead(config.features, config.num_classes)


@torch.no_grad()
def start_head(head: nn.Module, tokenizer: nn.Module) -> int:
    """Copy the decoder's weights into a head wherever the shapes are the same; how many tensors those were.

    A light head is no decoder and takes none.
    """
    if isinstance(head, LightHead):
        return 0
    decoder_of = next(kind.decoder_of for kind, of in HEADS.values() if isinstance(tokenizer, of))
    given = decoder_of(tokenizer).state_dict()
    taken = 0
    for name, weight in cast(nn.Module, head.decoder).state_dict().items():
        if name in given and given[name].shape == weight.shape:
            weight.copy_(given[name])
            taken += 1
    return taken
