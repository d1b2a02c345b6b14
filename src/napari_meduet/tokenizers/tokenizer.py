"""The protocol of every tokenizer (specification, section 3).

A tokenizer encodes a volume to a small latent and decodes a latent to a volume. It works on tensors in
normalised intensity. The model card holds the intensity profile and the standardisation of the latents
(`models/card.py`). `tiling.py` cuts large volumes into tiles. `registry.py` lists the tokenizers.
"""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn


@runtime_checkable
class Tokenizer(Protocol):
    """A variational autoencoder of volumes.

    Attributes:
        name: its key in the registry and on a model card, such as ``"wavelet"``.
        channels: numbers per latent voxel.
        stride: voxels per latent voxel, along x, y and z.
        halo: latent voxels around one latent voxel that its encoding or decoding depends on. Tiles that
            overlap by twice the halo join without seams.
        bytes_per_latent_voxel: approximate working memory of encoding or decoding one latent voxel.
            `tiling.py` chooses the tile size from it.
    """

    name: str
    channels: int
    stride: tuple[int, int, int]
    halo: int
    bytes_per_latent_voxel: int

    def encode(
        self, volume: Float[Tensor, "B 1 X Y Z"]
    ) -> tuple[Float[Tensor, "B C x y z"], Float[Tensor, "B C x y z"]]:
        """Return mean and log-variance of the latent of a volume in [0, 1].

        Each side of the volume is a multiple of the stride along its axis.
        """
        ...

    def decode(self, latent: Float[Tensor, "B C x y z"]) -> Float[Tensor, "B 1 X Y Z"]:
        """Return the volume of a latent, in normalised intensity."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the weights of the network; `tiling.py` reads the device from them."""
        ...
