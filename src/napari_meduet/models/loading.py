"""Load a model folder: check its card and every weight file, then build the networks.

The networks of the most recently used models stay in memory. `saving.py` writes model folders, `weights.py`
checks weight files, and `card.py` checks the card.
"""

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import cast

import torch
from torch import nn

from napari_meduet.core.analysis.classifier import ClassifierConfig
from napari_meduet.core.analysis.unetr import UNETRConfig
from napari_meduet.core.meduet import MeDUET
from napari_meduet.core.standardisation import LatentStandardisation
from napari_meduet.core.synthesis.control import ControlNet
from napari_meduet.core.synthesis.generator import Generator
from napari_meduet.errors import InputError
from napari_meduet.models.card import (
    CARD_FILE,
    CLASSIFIER_FILE,
    CONTROL_FILE,
    GENERATOR_FILE,
    MEDUET_FILE,
    SEGMENTER_FILE,
    STYLES_FILE,
    TOKENIZER_FILE,
    ModelCard,
    read_card,
)
from napari_meduet.models.configs import generator_config, generator_mismatch, meduet_config, with_tuples
from napari_meduet.models.devices import choose_device
from napari_meduet.models.folders import demo_model_path
from napari_meduet.models.model import Model
from napari_meduet.models.segmenters import build_classifier, build_segmenter
from napari_meduet.models.styles import unpack_styles
from napari_meduet.models.weights import checked_bytes, fill_network
from napari_meduet.tokenizers.registry import build_tokenizer
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.volumes.intensity import IntensityProfile

LARGEST_MODEL_BYTES = 16 * 1024**3
KEPT_MODELS = 2

_building = Lock()  # two threads that load one model must not build it twice
_built: dict[tuple[str, str], Model] = {}  # by card and device, the most recently built last


def load_model(path: str | Path | None = None, device: str = "auto") -> Model:
    """Return the model in a folder, ready to use in float32.

    The files are read and checked at every call. The networks are built once and reused by the next call.

    Args:
        path: the model folder; None loads the embedded model.
        device: "auto", "cpu", "cuda" or "mps".

    Raises:
        InputError: the folder, its card or a weight file is missing, damaged or replaced, or needs another
            version.

    Examples:
        >>> from napari_meduet.models.loading import load_model
        >>> model = load_model(device="cpu")
        >>> model.card.modalities
        ('CT', 'MR')
    """
    folder = Path(path) if path is not None else demo_model_path()
    target = choose_device(device)
    card = read_card(folder)
    if sum(file.num_bytes for file in card.files.values()) > LARGEST_MODEL_BYTES:
        raise InputError(f"{folder.name}/{CARD_FILE}: files: more than 16 GiB of weights.")
    contents = {name: checked_bytes(folder, name, file) for name, file in card.files.items()}
    key = (card.model_dump_json(), str(target))
    with _building:
        if key not in _built:
            while len(_built) >= KEPT_MODELS:
                del _built[next(iter(_built))]
            _built[key] = _build(card, contents, target, folder.name)
        return _built[key]


def _build(card: ModelCard, contents: Mapping[str, bytes], device: torch.device, folder_name: str) -> Model:
    """Build the networks of a card and load the checked weights into them."""

    def fill(network: nn.Module, name: str) -> None:
        fill_network(network, contents[name], f"{folder_name}/{name}")
        network.eval().requires_grad_(False).to(device)

    try:
        tokenizer = build_tokenizer(card.tokenizer.name, card.tokenizer.config)
        meduet = MeDUET(meduet_config(card))
        generator = Generator(generator_config(card)) if card.generator is not None else None
        segmenter = card.segmenter and build_segmenter(
            UNETRConfig(**with_tuples(card.segmenter.config)), card.tokenizer
        )
        classifier = card.classifier and build_classifier(
            ClassifierConfig(**with_tuples(card.classifier.config)), card.tokenizer
        )
        for profile in card.profiles.values():
            if profile.knots:
                IntensityProfile(profile.name, profile.knots)  # raises if the knots do not increase
    except (TypeError, ValueError) as error:
        raise InputError(f"{folder_name}/{CARD_FILE}: {error}") from error
    fill(tokenizer, TOKENIZER_FILE)
    fill(meduet, MEDUET_FILE)
    if generator is not None:
        if mismatch := generator_mismatch(generator.config, meduet.config):
            raise InputError(f"{folder_name}/{CARD_FILE}: generator: {mismatch}.")
        fill(generator, GENERATOR_FILE)
    control = None
    if generator is not None and card.control is not None:
        control = ControlNet(generator, len(card.control.classes))
        fill(control, CONTROL_FILE)
    if segmenter is not None:
        fill(segmenter, SEGMENTER_FILE)
    if classifier is not None:
        fill(classifier, CLASSIFIER_FILE)
    styles = unpack_styles(contents[STYLES_FILE], folder_name) if STYLES_FILE in contents else {}
    for name, style in styles.items():
        style.check_model(card.sha256, f"{folder_name}/{STYLES_FILE}: {name}")
    return Model(
        card=card,
        sha256=card.sha256,
        device=device,
        tokenizer=cast(Tokenizer, tokenizer),
        meduet=meduet,
        latents=LatentStandardisation.of_channels(card.tokenizer.latent_mean, card.tokenizer.latent_std),
        known_styles=styles,
        generator=generator,
        control=control,
        segmenter=segmenter,
        classifier=classifier,
    )
