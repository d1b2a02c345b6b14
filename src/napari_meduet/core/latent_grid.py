"""What a network reads or writes: a latent cut into a grid of patches, one token each (M-14)."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LatentGrid:
    """Sizes that every configuration of a network on latents begins with."""

    latent_channels: int = 4
    patch_size: int = 4  # latent voxels
    grid: tuple[int, int, int]  # tokens along each axis

    @property
    def num_tokens(self) -> int:
        x, y, z = self.grid
        return x * y * z

    @property
    def patch_values(self) -> int:
        """Latent values in one patch."""
        return self.latent_channels * self.patch_size**3

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Channels and voxels of the latents."""
        x, y, z = (tokens * self.patch_size for tokens in self.grid)
        return self.latent_channels, x, y, z
