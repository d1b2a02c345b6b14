"""A segmentation mask that a sample must follow: ControlNet on a generator that stays as it is (M-40).

A copy of the generator's first blocks reads the noised latent together with the mask; what it finds is added
to the generator's own tokens, block by block, through layers that begin at zero. So training begins with
exactly the generator, and a model keeps it for samples without a mask.
"""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from napari_meduet.core.patches import patchify
from napari_meduet.core.synthesis.generator import Generator, transformed

MOST_BLOCKS = 6  # M-40: half of the paper's twelve, and half of fewer


def mask_shares(labels: Int[Tensor, "B X Y Z"], num_classes: int, voxels: int) -> Float[Tensor, "B K x y z"]:
    """How much of each latent voxel every class fills, 0 to 1.

    Args:
        labels: 0 to num_classes - 1.
        voxels: along each axis of a latent voxel.

    Raises:
        ValueError: a label that is none of the classes.
    """
    unknown = labels[(labels < 0) | (labels >= num_classes)].unique().tolist()
    if unknown:
        raise ValueError(f"The mask has labels {unknown}; this model knows 0 to {num_classes - 1}.")
    shares = [F.avg_pool3d((labels == number).float(), voxels) for number in range(num_classes)]
    return torch.stack(shares, dim=1)


class ControlNet(nn.Module):
    """What a mask adds to the tokens of a generator (M-40).

    Args:
        generator: gives the first weights; it is neither changed nor kept.
        num_classes: of the mask, background among them.
    """

    positions: Float[Tensor, "L D"]

    def __init__(self, generator: Generator, num_classes: int) -> None:
        super().__init__()
        config = generator.config
        self.num_classes, self.patch_size = num_classes, config.patch_size
        self.register_buffer("positions", config.positions(), persistent=False)
        self.patch_embedding = copy.deepcopy(generator.patch_embedding)
        self.mask_embedding = nn.Linear(num_classes * config.patch_size**3, config.width)
        self.transformer = copy.deepcopy(generator.transformer)
        depth = min(MOST_BLOCKS, -(-config.depth // 2))
        self.transformer.blocks = self.transformer.blocks[:depth]
        self.joins = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(depth))
        for parameter in self.joins.parameters():
            nn.init.zeros_(parameter)
        self.requires_grad_(True)

    def forward(
        self,
        latent: Float[Tensor, "B C X Y Z"],
        mask: Float[Tensor, "B K X Y Z"],
        modulation: Float[Tensor, "B M D"],
        spatial: Float[Tensor, "B L D"] | None = None,
    ) -> list[Float[Tensor, "B L D"]]:
        """For `Generator.predict`: one addition for each of the first blocks.

        Args:
            mask: `mask_shares`.
        """
        tokens = self.patch_embedding(patchify(latent, self.patch_size)) + self.positions
        tokens = tokens + self.mask_embedding(patchify(mask, self.patch_size))
        if spatial is not None:
            tokens = tokens + spatial
        additions = []
        for number, join in enumerate(self.joins):
            tokens = transformed(self.transformer, number, tokens, modulation)
            additions.append(join(self.transformer.norm(tokens)))
        return additions
