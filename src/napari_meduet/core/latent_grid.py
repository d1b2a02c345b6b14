"""Size of the latents that a network reads, and how they are cut into a grid of patches (M-14)."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LatentGrid:
    """Base of the configurations of all networks that read latents. Each patch becomes one token."""

    latent_channels: int = 4
    patch_size: int = 4  # latent voxels
    grid: tuple[int, int, int]  # tokens along each axis

    @property
    def num_tokens(self) -> int:
        x, y, z = self.grid
        return x * y * z

    @property
    def patch_values(self) -> int:
        """Number of latent values in one patch."""
        return self.latent_channels * self.patch_size**3

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """Channels and voxels of the latents."""
        x, y, z = (tokens * self.patch_size for tokens in self.grid)
        return self.latent_channels, x, y, z

    def check_window(self, shape: tuple[int, ...]) -> None:
        """Refuse latents of another shape.

        Args:
            shape: channels and voxels of the latents.

        Raises:
            ValueError: the shape is not `latent_shape`.
        """
        if tuple(shape) != self.latent_shape:
            raise ValueError(
                f"This latent has shape {tuple(shape)}, but the network reads windows of "
                f"{self.latent_shape}. Cut it into windows first."
            )
