"""What every tokenizer promises: a volume in profile units becomes a small latent and comes back (specification, section 3).

A tokenizer knows tensors. Which profile made the units, where the volume lies in the patient and how the
latent is standardised are the business of the model card; how a large volume is cut is `tiling.py`'s.
"""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn


@runtime_checkable
class Tokenizer(Protocol):
    """A variational autoencoder of volumes, seen from outside.

    Attributes:
        name: the word in the model card that chooses it, e.g. ``"wavelet"``.
        channels: numbers per latent voxel.
        stride: voxels per latent voxel, along each axis.
        halo: latent voxels around a latent voxel that can change what it decodes to, or what it was encoded
            from. Tiles that overlap by twice the halo have no seams.
        bytes_per_latent_voxel: working memory while coding, about; tiling.py chooses its tiles by it.
    """

    name: str
    channels: int
    stride: int
    halo: int
    bytes_per_latent_voxel: int

    def encode(
        self, volume: Float[Tensor, "B 1 X Y Z"]
    ) -> tuple[Float[Tensor, "B C x y z"], Float[Tensor, "B C x y z"]]:
        """Mean and log-variance of the latent of a volume in [0, 1], its sides multiples of the stride."""
        ...

    def decode(self, latent: Float[Tensor, "B C x y z"]) -> Float[Tensor, "B 1 X Y Z"]:
        """The volume that a latent stands for, in profile units."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """The network's weights; they tell which device it lives on."""
        ...
