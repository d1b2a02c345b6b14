"""Write model folders, and add networks or metrics to them.

Every function here writes all of its files or none. `loading.py` reads model folders.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from napari_meduet.core.analysis.classifier import ClassifierConfig
from napari_meduet.core.analysis.unetr import UNETRConfig
from napari_meduet.core.synthesis.control import ControlNet
from napari_meduet.core.synthesis.generator import Generator, GeneratorConfig
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
    ClassifierCard,
    ControlCard,
    MaskClass,
    Modality,
    ModelCard,
    SegmenterCard,
    TokenizerCard,
    read_card,
)
from napari_meduet.models.configs import generator_config, generator_mismatch, meduet_config
from napari_meduet.models.segmenters import build_classifier, build_segmenter
from napari_meduet.models.styles import Style, pack_styles
from napari_meduet.models.weights import checked_bytes, packed, packed_half, weight_file, weight_shapes
from napari_meduet.volumes.files import write_atomically
from napari_meduet.volumes.safe_open import reason
from napari_meduet.volumes.writing import check_room, write_all_atomically

OPTIONAL_NETWORKS = {  # weight file -> field of the card
    GENERATOR_FILE: "generator",
    CONTROL_FILE: "control",
    SEGMENTER_FILE: "segmenter",
    CLASSIFIER_FILE: "classifier",
}


def save_model(
    folder: Path,
    card: ModelCard,
    tokenizer: Mapping[str, Tensor],
    meduet: Mapping[str, Tensor],
    known_styles: Mapping[str, Style] | None = None,
    *,
    overwrite: bool = False,
) -> ModelCard:
    """Write a model folder and return its card, with the digest of each weight file.

    The written folder holds no generator, ControlNet, segmenter or classifier, even if the card names one.
    `save_generator`, `save_control`, `save_segmenter` and `save_classifier` add these networks.

    Args:
        tokenizer, meduet: state dicts, written in the precision that they have.
        known_styles: the style of each domain, by name. Each style names the model with these weights.
        overwrite: replace a model that the folder already holds.

    Raises:
        InputError: the folder holds a model, the disk is full, or the folder cannot be written. A model that
            was there is unchanged.

    Examples:
        >>> from napari_meduet.models.loading import load_model
        >>> model = load_model("my-model")
        >>> card = model.card.model_copy(update={"description": "A corrected description."})
        >>> save_model(Path("copy"), card, model.tokenizer.state_dict(), model.meduet.state_dict())
    """
    contents = {TOKENIZER_FILE: packed(tokenizer), MEDUET_FILE: packed(meduet)}
    if known_styles:
        contents[STYLES_FILE] = pack_styles(known_styles)
    card = _updated(
        card,
        files={name: weight_file(content) for name, content in contents.items()},
        generator=None,
        generator_training={},
        control=None,
        segmenter=None,
        classifier=None,
    )
    _make_folder(folder)
    _write(folder, contents, card, overwrite)
    return card


def copy_model(source: Path, target: Path, *, without: Collection[str] = (), name: str = "") -> ModelCard:
    """Copy a model to a new folder and return the card of the copy.

    Args:
        without: weight files to leave out, such as `SEGMENTER_FILE`. Without the generator, its ControlNet is
            left out as well.
        name: the name of the copy; by default the name of the model.

    Raises:
        InputError: the model is incomplete or damaged, the target holds a model, or it cannot be written.
    """
    card = read_card(source)
    left_out = {*without, *((CONTROL_FILE,) if GENERATOR_FILE in without else ())}
    contents = {
        file: checked_bytes(source, file, expected)
        for file, expected in card.files.items()
        if file not in left_out
    }
    removed: dict[str, Any] = {field: None for file, field in OPTIONAL_NETWORKS.items() if file in left_out}
    if "generator" in removed:
        removed["generator_training"] = {}
    files = {file: card.files[file] for file in contents}
    card = _updated(card, name=name or card.name, files=files, **removed)
    _make_folder(target)
    _write(target, contents, card, overwrite=False)
    return card


def save_generator(
    folder: Path, config: GeneratorConfig, weights: Mapping[str, Tensor], training: Mapping[str, Any]
) -> ModelCard:
    """Add a generator to a model folder, or replace its generator, and return the new card.

    The identity of the model stays. A ControlNet of the previous generator is removed.

    Args:
        weights: the state dict; written in half precision.
        training: how the generator was trained, for the card.

    Raises:
        InputError: the folder holds no model, the generator cannot read the factors of the model, or it
            cannot be written. The folder is then unchanged.
    """
    card = read_card(folder)
    if mismatch := generator_mismatch(config, meduet_config(card)):
        raise InputError(f"{folder.name}: this generator was made for another model: {mismatch}.")
    content = packed_half(weights)
    others = {name: file for name, file in card.files.items() if name != CONTROL_FILE}
    card = _updated(
        card,
        files={**others, GENERATOR_FILE: weight_file(content)},
        generator=asdict(config),
        generator_training=dict(training),
        control=None,
    )
    _write(folder, {GENERATOR_FILE: content}, card, overwrite=True)
    (folder / CONTROL_FILE).unlink(missing_ok=True)
    return card


def save_control(
    folder: Path, control: ControlNet, classes: Sequence[MaskClass], training: Mapping[str, Any]
) -> ModelCard:
    """Add a ControlNet to the generator of a model folder, or replace it, and return the new card.

    Args:
        control: the network; written in half precision.
        classes: the classes of its masks, the background first.
        training: how the ControlNet was trained, for the card.

    Raises:
        InputError: the model has no generator, the ControlNet does not fit it, or it cannot be written. The
            folder is then unchanged.
    """
    card = read_card(folder)
    if card.generator is None:
        raise InputError(f"{folder.name}: this model has no generator that a ControlNet could steer.")
    expected = ControlNet(Generator(generator_config(card)), control.num_classes)
    weights = control.state_dict()
    if len(classes) != control.num_classes or weight_shapes(weights) != weight_shapes(expected.state_dict()):
        raise InputError(f"{folder.name}: this ControlNet was made for another generator, or other classes.")
    content = packed_half(weights)
    control_card = ControlCard(
        classes=tuple(classes),
        generator_sha256=card.files[GENERATOR_FILE].sha256,
        training=dict(training),
    )
    card = _updated(card, files={**card.files, CONTROL_FILE: weight_file(content)}, control=control_card)
    _write(folder, {CONTROL_FILE: content}, card, overwrite=True)
    return card


def save_segmenter(
    folder: Path,
    config: UNETRConfig,
    weights: Mapping[str, Tensor],
    classes: Sequence[MaskClass],
    modalities: Sequence[Modality],
    training: Mapping[str, Any],
    sequences: Sequence[str] = (),
) -> ModelCard:
    """Add a segmenter to a model folder, or replace its segmenter, and return the new card.

    The identity of the model stays.

    Args:
        weights: the state dict; written in half precision.
        classes: one class for each output channel, the background first.
        modalities: the modalities of the training scans.
        training: how the segmenter was trained, for the card.
        sequences: names of the MR sequences that the segmenter reads together, in the order of its input.

    Raises:
        InputError: the folder holds no model, the segmenter fits neither the model nor its classes, or it
            cannot be written. The folder is then unchanged.
    """
    fields = {
        "classes": tuple(classes),
        "modalities": tuple(modalities),
        "training": dict(training),
        "sequences": tuple(sequences),
    }
    return _save_analyst(folder, SEGMENTER_FILE, SegmenterCard, build_segmenter, config, weights, fields)


def save_classifier(
    folder: Path,
    config: ClassifierConfig,
    weights: Mapping[str, Tensor],
    classes: Sequence[str],
    modalities: Sequence[Modality],
    training: Mapping[str, Any],
) -> ModelCard:
    """Add a classifier to a model folder, or replace its classifier. See `save_segmenter`."""
    fields = {"classes": tuple(classes), "modalities": tuple(modalities), "training": dict(training)}
    return _save_analyst(folder, CLASSIFIER_FILE, ClassifierCard, build_classifier, config, weights, fields)


def save_metrics(
    folder: Path, metrics: Mapping[str, Any], of: Literal["model", "segmenter", "classifier"] = "model"
) -> ModelCard:
    """Store metrics of a model, or of one of its networks, on the card, and return the new card.

    Raises:
        InputError: the folder holds no model, or the model has no such network.
    """
    card = read_card(folder)
    if of == "model":
        card = _updated(card, metrics=dict(metrics))
    else:
        network = getattr(card, of)
        if network is None:
            raise InputError(f"{folder.name}: this model has no {of}, so its metrics cannot be stored.")
        card = _updated(card, **{of: network.model_copy(update={"metrics": dict(metrics)})})
    with write_atomically(folder / CARD_FILE, overwrite=True) as temporary:
        temporary.write_text(_card_text(card), encoding="utf-8")
    return card


def _save_analyst(
    folder: Path,
    file: str,
    card_type: type[SegmenterCard | ClassifierCard],
    build: Callable[[Any, TokenizerCard], nn.Module],
    config: UNETRConfig | ClassifierConfig,
    weights: Mapping[str, Tensor],
    fields: Mapping[str, Any],
) -> ModelCard:
    card, kind = read_card(folder), OPTIONAL_NETWORKS[file]
    content = packed_half(weights)
    try:
        with torch.device("meta"):
            network = build(config, card.tokenizer)
        if weight_shapes(network.state_dict()) != weight_shapes(weights):
            raise ValueError("its weights are not those of its sizes")
        added = card_type.model_validate({"config": asdict(config), **fields})
        card = _updated(card, files={**card.files, file: weight_file(content)}, **{kind: added})
    except ValueError as error:
        raise InputError(f"{folder.name}: this {kind} does not fit the model: {_message(error)}.") from error
    _write(folder, {file: content}, card, overwrite=True)
    return card


def _message(error: ValueError) -> str:
    """Return the first message of an error, without its full stop."""
    first = (
        error.errors()[0]["msg"].removeprefix("Value error, ")
        if isinstance(error, ValidationError)
        else error
    )
    return str(first).rstrip(".")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder.name}: the folder cannot be created ({reason(error)}).") from error


def _write(folder: Path, contents: Mapping[str, bytes], card: ModelCard, overwrite: bool) -> None:
    """Write weight files together with the card that names them, all or none."""
    contents = {**contents, CARD_FILE: _card_text(card).encode()}
    check_room(folder, sum(map(len, contents.values())))
    with write_all_atomically([folder / name for name in contents], overwrite) as temporaries:
        for temporary, content in zip(temporaries, contents.values(), strict=True):
            temporary.write_bytes(content)


def _updated(card: ModelCard, **changes: Any) -> ModelCard:
    """Return the changed card, validated, as it is when read again: JSON has lists instead of tuples."""
    return ModelCard.model_validate_json(card.model_copy(update=changes).model_dump_json())


def _card_text(card: ModelCard) -> str:
    return json.dumps(card.model_dump(mode="json"), indent=2) + "\n"
