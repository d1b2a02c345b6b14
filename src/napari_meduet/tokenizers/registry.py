"""Tokenizers by name: the word in a model card becomes a network. A new tokenizer is one line here."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from napari_meduet.tokenizers.maisi import MaisiConfig, MaisiTokenizer
from napari_meduet.tokenizers.wavelet import WaveletConfig, WaveletTokenizer

TOKENIZERS = {
    "wavelet": (WaveletTokenizer, WaveletConfig),
    "maisi": (MaisiTokenizer, MaisiConfig),
}


def build_tokenizer(name: str, config: Mapping[str, Any]) -> nn.Module:
    """The tokenizer of that name at these sizes, its weights still random.

    Raises:
        ValueError: no tokenizer has this name, or it has no such size.
    """
    sizes = sizes_of(name, config)
    return TOKENIZERS[name][0](sizes)


def sizes_of(name: str, config: Mapping[str, Any]) -> Any:
    """The sizes that a card says, as the configuration of that tokenizer.

    Raises:
        ValueError: no tokenizer has this name, or it has no such size.
    """
    if name not in TOKENIZERS:
        raise ValueError(f"tokenizer {name!r} is unknown; this version has {', '.join(TOKENIZERS)}.")
    try:
        return TOKENIZERS[name][1](**{key: _frozen(value) for key, value in config.items()})
    except TypeError as error:
        raise ValueError(f"tokenizer {name!r} does not know one of {', '.join(config)}.") from error


def _frozen(value: Any) -> Any:
    """JSON has lists where a frozen configuration has tuples."""
    return tuple(value) if isinstance(value, list) else value
