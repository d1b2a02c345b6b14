"""Transfer of pretrained encoder weights into generators and analysis networks (Sec. 3.5).

The tensors of the encoder's blocks, its last layer norm and its patch embedding load by name. Positions are
computed and never loaded, so the new network may have another grid. If the new network is deeper, its
additional blocks keep their initial weights.
"""

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from napari_meduet.core.analysis.unetr import inflated
from napari_meduet.core.meduet import Encoder
from napari_meduet.core.synthesis.generator import Generator
from napari_meduet.core.transformer import Block, Transformer


def warm_start(generator: Generator, encoder: Encoder) -> None:
    """Copy the encoder's weights into a generator of the same width.

    Raises:
        ValueError: the two differ in width, heads or patches, or the generator has fewer blocks.
    """
    _copy_blocks(generator.transformer, encoder.transformer, "generator")
    _copy(generator.patch_embedding, encoder.patch_embedding, "generator")


def warm_start_encoder(network: Encoder, encoder: Encoder) -> None:
    """Copy the encoder's weights into the encoder of an analysis network.

    The analysis network may read the latents of k modalities at once.

    Raises:
        ValueError: the two differ in width, heads or patches, or the network has fewer blocks.
    """
    _copy_blocks(network.transformer, encoder.transformer, "network")
    values = encoder.patch_embedding.in_features  # values in a patch of one modality
    modalities = network.patch_embedding.in_features // values
    if modalities > 1:
        state = encoder.patch_embedding.state_dict()
        channels = values // encoder.patch_size**3
        state["weight"] = inflated(state["weight"], channels, modalities)
        _copy_state(network.patch_embedding, state, "network")
    else:
        _copy(network.patch_embedding, encoder.patch_embedding, "network")


def _copy_blocks(target: Transformer, source: Transformer, name: str) -> None:
    if len(target.blocks) < len(source.blocks):
        raise ValueError(
            f"The {name} has {len(target.blocks)} blocks, fewer than the encoder's {len(source.blocks)}. "
            f"Choose a {name} at least as deep."
        )
    heads, source_heads = (cast(Block, each.blocks[0]).attention.num_heads for each in (target, source))
    if heads != source_heads:
        raise ValueError(
            f"The {name} has {heads} attention heads, but the encoder has {source_heads}. Choose a {name} "
            "with the same number of heads."
        )
    _copy(target.norm, source.norm, name)
    for new, old in zip(target.blocks, source.blocks, strict=False):
        _copy(new, old, name)


def _copy(target: nn.Module, source: nn.Module, name: str) -> None:
    _copy_state(target, source.state_dict(), name)


def _copy_state(target: nn.Module, state: dict[str, Float[Tensor, "..."]], name: str) -> None:
    try:
        target.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"The {name} and the encoder differ in width or in the size of their patches, so the encoder's "
            "weights do not fit."
        ) from error
