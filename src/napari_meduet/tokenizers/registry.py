"""The registry of tokenizers: one row holds everything that depends on the kind of tokenizer.

To add a tokenizer, write its network and configuration in a file of this folder (`tokenizer.py` is the
protocol), write a segmentation head in `heads.py`, and add a row here. Swapping, caching latents and
pretraining find it by the name on a model card or in a weight file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from napari_meduet.core.analysis.heads import LightHead
from napari_meduet.core.analysis.unetr import UNETRConfig
from napari_meduet.tokenizers.heads import MaisiHead, WaveletHead
from napari_meduet.tokenizers.maisi import MaisiConfig, MaisiTokenizer
from napari_meduet.tokenizers.wavelet import WaveletConfig, WaveletTokenizer


@dataclass(frozen=True, kw_only=True)
class TokenizerType:
    """One kind of tokenizer.

    Attributes:
        name: the key on model cards, in weight files and in caches.
        config: the frozen dataclass of its sizes. Its property `stride` gives voxels per latent voxel along
            x, y and z.
        network: the class of the network, built from a `config`; it follows the `Tokenizer` protocol.
        head: the class of the segmentation head, built from a `config`, the number of features and the number
            of classes. Its static method `decoder_of` returns the part of the network it can start from.
        profiles: name of the intensity profile that the tokenizer expects, for each modality (M-03). A CT
            profile is fixed in HU; `mr` is fitted to each scan.
        from_file: reads a weight file in the format of its publisher; None if no such format exists.
    """

    name: str
    config: type
    network: type[nn.Module]
    head: type[nn.Module]
    profiles: Mapping[str, str]
    from_file: Callable[[Path], nn.Module] | None = None


TOKENIZERS = {
    row.name: row
    for row in (
        TokenizerType(
            name="wavelet",
            config=WaveletConfig,
            network=WaveletTokenizer,
            head=WaveletHead,
            profiles={"CT": "ct-full", "MR": "mr"},
        ),
        TokenizerType(
            name="maisi",
            config=MaisiConfig,
            network=MaisiTokenizer,
            head=MaisiHead,
            profiles={"CT": "ct-wide", "MR": "mr"},
            from_file=MaisiTokenizer.from_file,
        ),
    )
}


def tokenizer_type(name: str) -> TokenizerType:
    """Return the row of a tokenizer.

    Raises:
        ValueError: the registry has no such name.
    """
    if name not in TOKENIZERS:
        raise ValueError(f"tokenizer {name!r} is unknown; this version has {', '.join(TOKENIZERS)}.")
    return TOKENIZERS[name]


def tokenizer_config(name: str, config: Mapping[str, Any]) -> Any:
    """Return the configuration of a tokenizer from the plain data of a card; JSON lists become tuples.

    Raises:
        ValueError: the registry has no such name, or the configuration has an unknown key or a bad value.
    """
    row = tokenizer_type(name)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    try:
        return row.config(**values)
    except TypeError as error:
        raise ValueError(f"tokenizer {name!r} does not know one of {', '.join(config)}.") from error


def build_tokenizer(name: str, config: Mapping[str, Any]) -> nn.Module:
    """Return a tokenizer with random weights.

    Args:
        name, config: as on a model card.

    Raises:
        ValueError: the registry has no such name, or the configuration has an unknown key or a bad value.

    Examples:
        >>> tokenizer = build_tokenizer("wavelet", {"channels": 4, "width": 32})
        >>> tokenizer.stride
        (4, 4, 4)
    """
    return tokenizer_type(name).network(tokenizer_config(name, config))


def build_head(config: UNETRConfig, tokenizer: str, tokenizer_sizes: Mapping[str, Any]) -> nn.Module:
    """Return the head of a latent UNETR for the latents of a tokenizer, with random weights.

    Args:
        config: `config.head` chooses the head with the decoder's architecture or the light head.
        tokenizer, tokenizer_sizes: name and configuration of the tokenizer, as on a model card.

    Raises:
        ValueError: the tokenizer is unknown, or the light head does not have its stride.
    """
    sizes = tokenizer_config(tokenizer, tokenizer_sizes)
    if config.head == "decoder":
        return tokenizer_type(tokenizer).head(sizes, config.features, config.num_classes)
    if sizes.stride != LightHead.stride:
        raise ValueError(
            f"The light head has a stride of {_axes(LightHead.stride)} voxels, but this tokenizer has "
            f"{_axes(sizes.stride)}. Choose the decoder head."
        )
    return LightHead(config.features, config.num_classes)


@torch.no_grad()
def start_head(head: nn.Module, tokenizer: nn.Module) -> int:
    """Copy the weights of the tokenizer's decoder into a head, and return the number of copied tensors.

    Only tensors of equal name and shape are copied. The light head has no decoder, so nothing is copied.
    """
    if isinstance(head, LightHead):
        return 0
    head_type = cast(Any, tokenizer_type(cast(str, tokenizer.name)).head)
    source = head_type.decoder_of(tokenizer).state_dict()
    copied = 0
    for name, weight in cast(nn.Module, head.decoder).state_dict().items():
        if name in source and source[name].shape == weight.shape:
            weight.copy_(source[name])
            copied += 1
    return copied


def _axes(stride: tuple[int, int, int]) -> str:
    return " x ".join(map(str, stride))
