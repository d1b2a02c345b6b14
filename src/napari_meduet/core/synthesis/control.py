"""ControlNet for segmentation masks, on a generator whose weights stay fixed (M-40).

A copy of the generator's first blocks reads the noised latent together with the mask. Its outputs are added
to the generator's tokens block by block through layers that start at zero. Training therefore starts with
exactly the generator, and a model keeps its generator for samples without a mask. `control_objective.py`
trains it.
"""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from napari_meduet.core.patches import patchify
from napari_meduet.core.synthesis.generator import Generator, transformed

MAX_BLOCKS = 6  # M-40: half of the paper's twelve blocks


def mask_fractions(
    labels: Int[Tensor, "B X Y Z"], num_classes: int, voxels: int | tuple[int, int, int]
) -> Float[Tensor, "B K x y z"]:
    """Return the fraction of each latent voxel that each class fills, 0 to 1.

    Args:
        labels: class numbers, 0 to num_classes - 1.
        voxels: number of voxels along each axis of a latent voxel.

    Raises:
        ValueError: a label is not a class number.
    """
    unknown = labels[(labels < 0) | (labels >= num_classes)].unique().tolist()
    if unknown:
        raise ValueError(f"The mask has labels {unknown}; this model knows labels 0 to {num_classes - 1}.")
    fractions = [F.avg_pool3d((labels == number).float(), voxels) for number in range(num_classes)]
    return torch.stack(fractions, dim=1)


class ControlNet(nn.Module):
    """Computes what a mask adds to the tokens of a generator (M-40).

    Args:
        generator: source of the initial weights; it is neither changed nor stored.
        num_classes: number of classes of the mask, with the background.
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
        depth = min(MAX_BLOCKS, -(-config.depth // 2))
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
        """Return one addition for each of the first blocks, the `control` of `Generator.predict`.

        Args:
            mask: result of `mask_fractions`.
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
