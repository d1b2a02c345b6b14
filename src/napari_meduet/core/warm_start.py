"""What a pretrained encoder gives to the networks that come after it (Sec. 3.5).

Every tensor of the encoder's blocks, its last layer norm and its patch embedding load by name; positions are
computed, never loaded, so the new network may have another grid. Where it is deeper, its further blocks stay
as they were made.
"""

from typing import cast

from torch import nn

from napari_meduet.core.meduet import Encoder
from napari_meduet.core.synthesis.generator import Generator
from napari_meduet.core.transformer import Block


def warm_start(generator: Generator, encoder: Encoder) -> None:
    """Copy the encoder's weights into a generator of the same width.

    Raises:
        ValueError: the two differ in width, heads, patches, or the generator has fewer blocks.
    """
    made, given = generator.transformer, encoder.transformer
    if len(made.blocks) < len(given.blocks):
        raise ValueError(
            f"The generator has {len(made.blocks)} blocks, fewer than the encoder's {len(given.blocks)}. "
            "Choose a generator at least as deep."
        )
    heads, of_encoder = (cast(Block, each.blocks[0]).attention.num_heads for each in (made, given))
    if heads != of_encoder:
        raise ValueError(f"The generator has {heads} attention heads, but the encoder {of_encoder}.")
    _copy(generator.patch_embedding, encoder.patch_embedding)
    _copy(made.norm, given.norm)
    for new, old in zip(made.blocks, given.blocks, strict=False):
        _copy(new, old)


def _copy(new: nn.Module, old: nn.Module) -> None:
    try:
        new.load_state_dict(old.state_dict())
    except RuntimeError as error:
        raise ValueError(
            "The generator and the encoder differ in width or in the size of their patches, so the encoder's "
            "weights do not fit."
        ) from error
