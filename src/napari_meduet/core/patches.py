"""Conversion between latents and rows of patches (M-02, M-14).

A latent of 4 x 24^3 becomes 216 patches of 4^3 latent voxels, each 24 mm wide at the working spacing. Tokens
keep the raster order of their patches, z running fastest.
"""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def patchify(latent: Float[Tensor, "B C X Y Z"], size: int) -> Float[Tensor, "B L P"]:
    """Cut each latent into cubes; a row holds one cube, P = C * size**3 numbers.

    Examples:
        >>> patchify(torch.zeros(1, 4, 24, 24, 24), size=4).shape
        torch.Size([1, 216, 256])
    """
    return rearrange(latent, "b c (x p) (y q) (z r) -> b (x y z) (p q r c)", p=size, q=size, r=size)


def unpatchify(
    patches: Float[Tensor, "B L P"], grid: tuple[int, int, int], size: int
) -> Float[Tensor, "B C X Y Z"]:
    """Return the latents whose patches these are; the inverse of `patchify`."""
    x, y, z = grid
    return rearrange(
        patches, "b (x y z) (p q r c) -> b c (x p) (y q) (z r)", x=x, y=y, z=z, p=size, q=size, r=size
    )
