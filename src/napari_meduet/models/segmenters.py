"""Segmenter and classifier of a model: build them as the card says, and start them from the model's weights.

`loading.py` and `saving.py` read and write them.
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
    """Return a segmenter for the latents of this tokenizer, with random weights.

    Raises:
        ValueError: the number of latent channels does not fit the tokenizer, or the head its stride.
    """
    check_latents(config.latent_channels, tokenizer)
    return LatentUNETR(config, build_head(config, tokenizer.name, tokenizer.config))


def build_classifier(config: ClassifierConfig, tokenizer: TokenizerCard) -> ScanClassifier:
    """Return a classifier for the latents of this tokenizer, with random weights.

    Raises:
        ValueError: the number of latent channels does not fit the tokenizer.
    """
    check_latents(config.latent_channels, tokenizer)
    return ScanClassifier(config)


def check_latents(latent_channels: int, tokenizer: TokenizerCard) -> None:
    """Check that a network reads the latents of one scan, or of several scans together (M-06).

    Raises:
        ValueError: the number of channels is no multiple of the tokenizer's.
    """
    per_scan = len(tokenizer.latent_mean)
    if latent_channels < 1 or latent_channels % per_scan:
        raise ValueError(
            f"latent_channels is {latent_channels}, but the tokenizer writes {per_scan} for each scan"
        )


def scans_read(network: LatentUNETR | ScanClassifier, model: Model) -> int:
    """Return the number of scans of a patient that the network reads together (M-06)."""
    return network.config.latent_channels // model.tokenizer.channels


def init_segmenter(network: LatentUNETR, model: Model, start: Start) -> None:
    """Initialise a segmenter before its training.

    The head copies the fitting weights of the tokenizer's decoder for both values of `start`, so that runs
    with and without MeDUET differ only in the encoder.

    Args:
        start: "meduet" copies the encoder of the model; "scratch" keeps its random weights.

    Raises:
        ValueError: the encoder's weights do not fit.
    """
    start_head(network.head, _module(model.tokenizer))
    if start == "meduet":
        warm_start_encoder(network.encoder, model.meduet.encoder)


def init_classifier(network: ScanClassifier, model: Model, start: Start) -> None:
    """Initialise a classifier before its training.

    Args:
        start: "meduet" copies the encoder of the model; "scratch" keeps its random weights.

    Raises:
        ValueError: the encoder's weights do not fit.
    """
    if start == "meduet":
        warm_start_encoder(network.encoder, model.meduet.encoder)


def _module(tokenizer: object) -> nn.Module:
    assert isinstance(tokenizer, nn.Module), "every tokenizer of the registry is a module"
    return tokenizer
