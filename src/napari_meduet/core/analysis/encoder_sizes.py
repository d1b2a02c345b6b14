"""Sizes of the pretrained encoder, the base of the configurations of segmenter and classifier."""

from dataclasses import dataclass
from typing import Any

from napari_meduet.core.meduet import MeDUETConfig


@dataclass(frozen=True, kw_only=True)
class EncoderSizes:
    """Sizes of an encoder; the defaults are the paper's (M-14).

    Attributes:
        latent_channels: channels of the latent; k times those of the tokenizer for scans of k modalities
            (M-06).
    """

    latent_channels: int = 4
    patch_size: int = 4  # latent voxels
    grid: tuple[int, int, int] = (6, 6, 6)  # tokens along each axis
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: int = 4

    @property
    def encoder(self) -> MeDUETConfig:
        """MeDUET configuration with this encoder; all other sizes have their defaults."""
        return MeDUETConfig(
            latent_channels=self.latent_channels,
            patch_size=self.patch_size,
            grid=self.grid,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
        )

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Channels and voxels of the latents that the network reads."""
        return self.encoder.latent_shape


def sizes_of(meduet: MeDUETConfig) -> dict[str, Any]:
    """Return the sizes of a MeDUET's encoder as keyword arguments of `EncoderSizes`."""
    names = ("latent_channels", "patch_size", "grid", "width", "depth", "heads", "mlp_ratio")
    return {name: getattr(meduet, name) for name in names}
