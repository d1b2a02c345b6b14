"""Sizes of the pretrained encoder, the base of the configurations of segmenter and classifier."""

from dataclasses import dataclass, fields
from typing import Any

from napari_meduet.core.latent_grid import LatentGrid
from napari_meduet.core.meduet import MeDUETConfig


@dataclass(frozen=True, kw_only=True)
class EncoderSizes(LatentGrid):
    """Sizes of an encoder; the defaults are the paper's (M-14).

    Attributes:
        latent_channels: channels of the latent; k times those of the tokenizer for scans of k modalities
            (M-06).
    """

    grid: tuple[int, int, int] = (6, 6, 6)  # tokens along each axis
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: int = 4

    @property
    def encoder(self) -> MeDUETConfig:
        """MeDUET configuration with this encoder; all other sizes have their defaults."""
        return MeDUETConfig(**sizes_of(self))


def sizes_of(config: MeDUETConfig | EncoderSizes) -> dict[str, Any]:
    """Return the sizes of an encoder as keyword arguments of `EncoderSizes`."""
    return {field.name: getattr(config, field.name) for field in fields(EncoderSizes)}
