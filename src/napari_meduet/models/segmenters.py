"""Segmenter and classifier of a model: build them as the card says, and start them from the model's weights.

`saving.py` and `loading.py` write and read them.
"""

from typing import Literal

from torch import nn

from napari_meduet.core.analysis.classifier import ClassifierConfig, ScanClassifier
from napari_meduet.core.analysis.unetr import LatentUNETR, UNETRConfig
from napari_meduet.core.warm_start import warm_start_encoder
from napari_meduet.models.card import TokenizerCard
from napari_meduet.models.model import Model
from napari_meduet.tokenizers.registry import build_head, start_head

Start = Literal["meduet", "scratch"]


def build_segmenter(config: UNETRConfig, tokenizer: TokenizerCard) -> LatentUNETR:
    """A segmenter of scans that this tokenizer encodes, its weights still random.

    Raises:
        ValueError: it reads other latents, or its head does not reach the tokenizer's voxels.
    """
    check_latents(config.latent_channels, tokenizer)
    return LatentUNETR(config, build_head(config, tokenizer.name, tokenizer.config))


def build_classifier(config: ClassifierConfig, tokenizer: TokenizerCard) -> ScanClassifier:
    """A classifier of scans that this tokenizer encodes, its weights still random.

    Raises:
        ValueError: it reads other latents.
    """
    check_latents(config.latent_channels, tokenizer)
    return ScanClassifier(config)


def check_latents(latent_channels: int, tokenizer: TokenizerCard) -> None:
    """Refuse a network that reads other latents than those of k scans (M-06).

    Raises:
        ValueError: with both numbers of channels.
    """
    of_a_scan = len(tokenizer.latent_mean)
    if latent_channels < 1 or latent_channels % of_a_scan:
        raise ValueError(
            f"latent_channels is {latent_channels}, but the tokenizer writes {of_a_scan} for each scan"
        )


def scans_read(network: LatentUNETR | ScanClassifier, model: Model) -> int:
    """How many scans of a patient the network reads together (M-06)."""
    return network.config.latent_channels // model.tokenizer.channels


def begin_segmenter(network: LatentUNETR, model: Model, start: Start) -> None:
    """Set the weights a segmenter begins with.

    The head takes what fits of the tokenizer's decoder either way, so that with and without MeDUET differ in
    the encoder alone.

    Raises:
        ValueError: the encoder's weights do not fit.
    """
    start_head(network.head, _module(model.tokenizer))
    if start == "meduet":
        warm_start_encoder(network.encoder, model.meduet.encoder)


def begin_classifier(network: ScanClassifier, model: Model, start: Start) -> None:
    """Set the weights a classifier begins with.

    Raises:
        ValueError: the encoder's weights do not fit.
    """
    if start == "meduet":
        warm_start_encoder(network.encoder, model.meduet.encoder)


def _module(tokenizer: object) -> nn.Module:
    assert isinstance(tokenizer, nn.Module), "every tokenizer of the registry is one"
    return tokenizer
