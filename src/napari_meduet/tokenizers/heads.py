"""Segmentation heads with the architecture of a tokenizer's decoder (specification, P-26).

A tokenizer's decoder writes one channel, and a mask needs one score for each class. A head therefore repeats
the decoder with another input and output layer: it reads features on the latent grid and writes class scores
on the voxel grid. The layers between have the shapes of the decoder and can start with its weights.
`registry.py` builds heads. `core/analysis/heads.py` holds the light head, which fits any tokenizer of
stride 4.
"""

from dataclasses import replace
from functools import partial

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from napari_meduet.core.analysis.heads import SCORE_GAIN, HeadStage
from napari_meduet.core.residual import ResidualBlock
from napari_meduet.tokenizers.maisi import MaisiConfig, MaisiTokenizer, maisi_network
from napari_meduet.tokenizers.wavelet import STRIDE, WaveletConfig, WaveletTokenizer, haar_matrix

HAAR_VALUES = STRIDE**3


class WaveletHead(nn.Module):
    """The wavelet tokenizer's decoder with 64 Haar coefficients for each class.

    Attributes:
        halo: latent voxels around one latent voxel that its scores depend on.
        stride: voxels per latent voxel, along x, y and z.
    """

    haar: Float[Tensor, "64 64"]

    def __init__(self, config: WaveletConfig, features: int, num_classes: int) -> None:
        super().__init__()
        self.stride, self.halo = config.stride, config.decoder_blocks
        haar = haar_matrix()
        # With this scale, a coefficient of 1 changes the scores of its voxels by at most 1.
        self.register_buffer("haar", haar / haar.abs().amax(dim=1, keepdim=True), persistent=False)
        self.widen = nn.Linear(features, config.width)
        self.decoder = nn.Sequential(*[ResidualBlock(config.width) for _ in range(config.decoder_blocks)])
        self.coefficients = nn.Linear(config.width, HAAR_VALUES * num_classes)
        nn.init.normal_(self.coefficients.weight, std=0.01)  # all classes start with similar scores
        nn.init.zeros_(self.coefficients.bias)

    @property
    def stages(self) -> list[HeadStage]:
        """The layers in order. Running a large scan layer by layer computes no overlap twice."""
        blocks = [HeadStage(partial(_channels_first, block), 1) for block in self.decoder]
        return [HeadStage(partial(_channels_first, self.widen), 0), *blocks, HeadStage(self._scores, 0)]

    def forward(self, features: Float[Tensor, "B F x y z"]) -> Float[Tensor, "B K X Y Z"]:
        """Return the score of each class for each voxel."""
        for stage in self.stages:
            features = stage.compute(features)
        return features

    def _scores(self, wide: Float[Tensor, "B W x y z"]) -> Float[Tensor, "B K X Y Z"]:
        coefficients = SCORE_GAIN * self.coefficients(wide.movedim(1, -1))
        blocks = coefficients.unflatten(-1, (-1, HAAR_VALUES)) @ self.haar  # (B, x, y, z, K, 64)
        return rearrange(blocks, "b x y z k (p q r) -> b k (x p) (y q) (z r)", p=STRIDE, q=STRIDE, r=STRIDE)

    @staticmethod
    def decoder_of(tokenizer: WaveletTokenizer) -> nn.Module:
        """Return the part of the tokenizer whose weights `decoder` can start with."""
        return tokenizer.decoder


class MaisiHead(nn.Module):
    """The decoder of MAISI's autoencoder with features as input and class scores as output.

    Its GroupNorm layers normalise over space, as in the decoder.

    Attributes:
        halo: latent voxels that the convs reach in each direction.
        stride: voxels per latent voxel, along x, y and z.
    """

    halo = MaisiTokenizer.halo

    def __init__(self, config: MaisiConfig, features: int, num_classes: int) -> None:
        super().__init__()
        self.stride = config.stride
        network = maisi_network(replace(config, latent_channels=features), out_channels=num_classes)
        self.decoder = network.decoder

    @property
    def stages(self) -> list[HeadStage]:
        """The whole head as one stage, because the grid changes inside the decoder."""
        return [HeadStage(self.forward, self.halo)]

    def forward(self, features: Float[Tensor, "B F x y z"]) -> Float[Tensor, "B K X Y Z"]:
        """Return the score of each class for each voxel."""
        return SCORE_GAIN * self.decoder(features)

    @staticmethod
    def decoder_of(tokenizer: MaisiTokenizer) -> nn.Module:
        """Return the part of the tokenizer whose weights `decoder` can start with."""
        return tokenizer.network.decoder


def _channels_first(layer: nn.Module, features: Float[Tensor, "B V x y z"]) -> Float[Tensor, "B W x y z"]:
    """Apply a layer that expects the channels last to features that have them first."""
    return layer(features.movedim(1, -1)).movedim(-1, 1)
