"""`wavelet`: the light tokenizer of the embedded model, compression 16 : 1 (specification, section 3).

A two-level Haar transform folds each 4x4x4 block of voxels into 64 coefficients without loss, so the networks
work on a grid with 64 times fewer places than the volume. A small residual network reduces the 64
coefficients to the latent channels, and a larger one predicts the coefficients from them. No layer normalises
over space: a decoded voxel depends only on its neighbourhood, so tiles with enough overlap have no seams.
"""

from dataclasses import asdict, dataclass
from itertools import product

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from napari_meduet.core.residual import ResidualBlock

STRIDE = 4  # voxels per latent voxel, the same along each axis


@dataclass(frozen=True, kw_only=True)
class WaveletConfig:
    """Sizes of the wavelet tokenizer. The defaults are those of the embedded model (docs/benchmarks.md)."""

    channels: int = 4
    width: int = 160
    encoder_blocks: int = 2
    decoder_blocks: int = 5

    def __post_init__(self) -> None:
        for field, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"{field} of a wavelet tokenizer must be a positive number; got {value}.")

    @property
    def stride(self) -> tuple[int, int, int]:
        """Voxels per latent voxel, along x, y and z."""
        return STRIDE, STRIDE, STRIDE


def haar_matrix() -> Float[Tensor, "64 64"]:
    """Return the orthonormal two-level Haar transform of a 4x4x4 block, one basis function in each row.

    Voxels are numbered with z fastest. Row 0 is 8 times the mean of the block, rows 1-7 are the coarse
    details, and rows 8-63 are the fine details.
    """
    smooth = torch.tensor([0.5, 0.5, 0.5, 0.5])
    coarse = torch.tensor([0.5, 0.5, -0.5, -0.5])
    half = 0.5**0.5
    fine = torch.tensor([[half, -half, 0, 0], [0, 0, half, -half]])
    pair = torch.tensor([[half, half, 0, 0], [0, 0, half, half]])

    def outer(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return torch.einsum("i,j,k->ijk", x, y, z).flatten()

    rows = [outer(*axes) for axes in product((smooth, coarse), repeat=3)]
    for bases in list(product((pair, fine), repeat=3))[1:]:  # fine detail along at least one axis
        rows += [outer(*axes) for axes in product(*bases)]
    return torch.stack(rows)


class WaveletTokenizer(nn.Module):
    """Haar transform and two small residual networks (see the module header)."""

    name = "wavelet"
    haar: Float[Tensor, "64 64"]
    scale: Float[Tensor, "64"]

    def __init__(self, config: WaveletConfig | None = None) -> None:
        super().__init__()
        config = config or WaveletConfig()
        self.config = config
        self.channels = config.channels
        self.stride = config.stride
        # Each block widens the receptive field by one latent voxel.
        self.halo = max(config.encoder_blocks, config.decoder_blocks)
        self.bytes_per_latent_voxel = 4 * (6 * config.width + 4 * STRIDE**3)  # activations in float32
        # Typical magnitudes of the coefficients for volumes in [0, 1]; scaled coefficients are near 1.
        scale = torch.tensor([2.0] + [0.3] * 7 + [0.1] * 56)
        self.register_buffer("haar", haar_matrix(), persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        # A linear code; the residual networks correct it.
        self.linear_code = nn.Linear(64, config.channels)
        self.linear_decode = nn.Linear(config.channels, 64)
        self.expand = nn.Linear(64, config.width)
        self.encoder = nn.Sequential(*[ResidualBlock(config.width) for _ in range(config.encoder_blocks)])
        self.squeeze = nn.Linear(config.width, 2 * config.channels)
        self.widen = nn.Linear(config.channels, config.width)
        self.decoder = nn.Sequential(*[ResidualBlock(config.width) for _ in range(config.decoder_blocks)])
        self.coefficients = nn.Linear(config.width, 64)

    def coefficients_of(self, volume: Float[Tensor, "B 1 X Y Z"]) -> Float[Tensor, "B x y z 64"]:
        """Return the Haar coefficients of each 4x4x4 block, scaled to numbers near 1."""
        blocks = rearrange(
            volume - 0.5, "b 1 (x p) (y q) (z r) -> b x y z (p q r)", p=STRIDE, q=STRIDE, r=STRIDE
        )
        return blocks @ self.haar.T / self.scale

    def encode(
        self, volume: Float[Tensor, "B 1 X Y Z"]
    ) -> tuple[Float[Tensor, "B C x y z"], Float[Tensor, "B C x y z"]]:
        """Return mean and log-variance of the latent of a volume in [0, 1].

        Raises:
            ValueError: a side of the volume is not a multiple of 4.
        """
        if any(side % STRIDE for side in volume.shape[2:]):
            raise ValueError(
                f"The wavelet tokenizer needs sides that are multiples of 4 voxels; a volume of "
                f"{tuple(volume.shape[2:])} has a side that is no multiple of 4. Pad it first, or use "
                "encode_tiled, which pads."
            )
        coefficients = self.coefficients_of(volume)
        mean, log_variance = self.squeeze(self.encoder(self.expand(coefficients))).chunk(2, dim=-1)
        mean = mean + self.linear_code(coefficients)
        return mean.movedim(-1, 1), log_variance.movedim(-1, 1).clamp(-20.0, 5.0)

    def decode(self, latent: Float[Tensor, "B C x y z"]) -> Float[Tensor, "B 1 X Y Z"]:
        """Return the volume of a latent, in normalised intensity. Values can lie slightly outside [0, 1]."""
        latent = latent.movedim(1, -1)
        features = self.decoder(self.widen(latent))  # (B, x, y, z, W)
        coefficients = self.coefficients(features) + self.linear_decode(latent)  # (B, x, y, z, 64)
        blocks = (coefficients.float() * self.scale) @ self.haar
        return 0.5 + rearrange(
            blocks, "b x y z (p q r) -> b 1 (x p) (y q) (z r)", p=STRIDE, q=STRIDE, r=STRIDE
        )
