"""What a pretrained encoder gives to the networks that come after it (Sec. 3.5).

Every tensor of the encoder's blocks, its last layer norm and its patch embedding load by name; positions are
computed, never loaded, so the new network may have another grid. Where it is deeper, its further blocks stay
as they were made.
"""

from typing import cast

from torch import Tensor, nn

from napari_meduet.core.analysis.unetr import inflated
from napari_meduet.core.meduet import Encoder
from napari_meduet.core.synthesis.generator import Generator
from napari_meduet.core.transformer import Block, Transformer


def warm_start(generator: Generator, encoder: Encoder) -> None:
    """Copy the encoder's weights into a generator of the same width.

    Raises:
        ValueError: the two differ in width, heads, patches, or the generator has fewer blocks.
    """
    _start_blocks(generator.transformer, encoder.transformer, "generator")
    _copy(generator.patch_embedding, encoder.patch_embedding, "generator")


def warm_start_encoder(network: Encoder, encoder: Encoder) -> None:
    """Copy the encoder's weights into that of a network of analysis, whose latents may be of k modalities.

    Raises:
        ValueError: the two differ in width, heads, patches, or the network has fewer blocks.
    """
    _start_blocks(network.transformer, encoder.transformer, "network")
    values = encoder.patch_embedding.in_features  # of a patch of one modality
    modalities = network.patch_embedding.in_features // values
    if modalities > 1:
        state = encoder.patch_embedding.state_dict()
        channels = values // encoder.patch_size**3
        state["weight"] = inflated(state["weight"], channels, modalities)
        _copy_state(network.patch_embedding, state, "network")
    else:
        _copy(network.patch_embedding, encoder.patch_embedding, "network")


def _start_blocks(made: Transformer, given: Transformer, what: str) -> None:
    if len(made.blocks) < len(given.blocks):
        raise ValueError(
            f"The {what} has {len(made.blocks)} blocks, fewer than the encoder's {len(given.blocks)}. "
            f"Choose a {what} at least as deep."
        )
    heads, of_encoder = (cast(Block, each.blocks[0]).attention.num_heads for each in (made, given))
    if heads != of_encoder:
        raise ValueError(f"The {what} has {heads} attention heads, but the encoder {of_encoder}.")
    _copy(made.norm, given.norm, what)
    for new, old in zip(made.blocks, given.blocks, strict=False):
        _copy(new, old, what)


def _copy(new: nn.Module, old: nn.Module, what: str) -> None:
    _copy_state(new, old.state_dict(), what)


def _copy_state(new: nn.Module, state: dict[str, Tensor], what: str) -> None:
    try:
        new.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"The {what} and the encoder differ in width or in the size of their patches, so the encoder's "
            "weights do not fit."
        ) from error
