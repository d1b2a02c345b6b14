"""Models on disk: a folder with a card and safetensors, checked before a tensor is made.

Every weight file is read once, compared with the size and digest its card names, and only then opened;
nothing is ever unpickled. What the card means is `card.py`'s business, what a style holds `styles.py`'s.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Literal, cast

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from napari_meduet.core.analysis.classifier import ClassifierConfig, ScanClassifier
from napari_meduet.core.analysis.unetr import LatentUNETR, UNETRConfig
from napari_meduet.core.meduet import MeDUET, MeDUETConfig
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
    WeightFile,
    read_card,
)
from napari_meduet.models.devices import choose_device
from napari_meduet.models.folders import demo_model_path
from napari_meduet.models.segmenters import build_classifier, build_segmenter
from napari_meduet.models.styles import Style, pack_styles, unpack_styles
from napari_meduet.tokenizers.registry import build_tokenizer
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.volumes.files import write_atomically
from napari_meduet.volumes.intensity import IntensityProfile, fit_mr_profile
from napari_meduet.volumes.safe_open import reason
from napari_meduet.volumes.writing import check_room, write_all_atomically

LARGEST_MODEL_BYTES = 16 * 1024**3
OPTIONAL_NETWORKS = {  # weight files, and where the card tells of them
    GENERATOR_FILE: "generator",
    CONTROL_FILE: "control",
    SEGMENTER_FILE: "segmenter",
    CLASSIFIER_FILE: "classifier",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A model ready to use.

    Attributes:
        sha256: its identity (`ModelCard.sha256`); styles and results name it.
        latent_mean, latent_std: (1, C, 1, 1, 1), what standardises the tokenizer's latents.
        known_styles: the styles of the domains it was trained on.
        generator: makes new latents from factors of `meduet`; None where the folder has none.
        control: makes it follow a mask; None where the folder has none.
        segmenter, classifier: say what is in a scan; None where the folder has none.
    """

    card: ModelCard
    sha256: str
    device: torch.device
    tokenizer: Tokenizer
    meduet: MeDUET
    latent_mean: Tensor
    latent_std: Tensor
    known_styles: Mapping[str, Style] = field(default_factory=dict)
    generator: Generator | None = None
    control: ControlNet | None = None
    segmenter: LatentUNETR | None = None
    classifier: ScanClassifier | None = None

    @property
    def token_voxels(self) -> int:
        """Voxels of the working grid along a token."""
        return self.meduet.config.patch_size * self.tokenizer.stride

    def profile_for(self, values: Any, modality: Modality) -> IntensityProfile:
        """The intensity profile of a scan: the card's for CT, fitted to the values for MR (M-03)."""
        if modality not in self.card.modalities:
            raise InputError(
                f"The model {self.card.name} knows {' and '.join(self.card.modalities)}, not {modality}. "
                "Choose another model, or give the right modality."
            )
        profile = self.card.profiles[modality]
        return IntensityProfile(profile.name, profile.knots) if profile.knots else fit_mr_profile(values)


def load_model(path: str | Path | None = None, device: str = "auto") -> Model:
    """The model in a folder, by default the embedded one, on a device and in float32.

    Its files are read and checked at every call; the networks are built once and kept for the next call.

    Raises:
        InputError: the folder, its card or a weight file is missing, damaged, replaced or of another kind.
    """
    folder = Path(path) if path is not None else demo_model_path()
    target = choose_device(device)
    card = read_card(folder)
    if sum(file.num_bytes for file in card.files.values()) > LARGEST_MODEL_BYTES:
        raise InputError(f"{folder.name}/{CARD_FILE}: files: more than 16 GiB of weights.")
    contents = {name: _checked_bytes(folder, name, file) for name, file in card.files.items()}
    key = (card.model_dump_json(), str(target))
    with _building:
        if key not in _built:
            while len(_built) >= KEPT_MODELS:
                del _built[next(iter(_built))]
            _built[key] = _build(card, contents, target, folder.name)
        return _built[key]


def save_model(
    folder: Path,
    card: ModelCard,
    tokenizer: Mapping[str, Tensor],
    meduet: Mapping[str, Tensor],
    known_styles: Mapping[str, Style] | None = None,
    *,
    overwrite: bool = False,
) -> ModelCard:
    """Write a model folder, all of it or nothing, and return the card with the digests of what was written.

    Generator, segmenter and classifier that the card names are not part of it; `save_generator` and its like
    add them.

    Args:
        tokenizer, meduet: state dicts, in the precision they shall have on disk.
        known_styles: the style of each domain; each must name the model of these very weights.

    Raises:
        InputError: the disk is full, or cannot be written; a model that was there is as it was.
    """
    blobs = {
        TOKENIZER_FILE: save({name: tensor.contiguous() for name, tensor in tokenizer.items()}),
        MEDUET_FILE: save({name: tensor.contiguous() for name, tensor in meduet.items()}),
    }
    if known_styles:
        blobs[STYLES_FILE] = pack_styles(known_styles)
    digests = {name: _weight_file(blob) for name, blob in blobs.items()}
    card = _changed(
        card,
        files=digests,
        generator=None,
        generator_training={},
        control=None,
        segmenter=None,
        classifier=None,
    )
    _write(folder, blobs, card, overwrite)
    return card


def copy_model(source: Path, target: Path, *, without: Collection[str] = (), name: str = "") -> ModelCard:
    """A new folder with the model of another, all of it or nothing.

    Args:
        without: weight files to leave out, such as `SEGMENTER_FILE`; a generator's ControlNet goes with it.
        name: what the copy is called; by default as the model is.

    Raises:
        InputError: the model is incomplete or damaged, there is one already, or it cannot be written.
    """
    card = read_card(source)
    left_out = {*without, *((CONTROL_FILE,) if GENERATOR_FILE in without else ())}
    blobs = {
        file: _checked_bytes(source, file, of) for file, of in card.files.items() if file not in left_out
    }
    lacking: dict[str, Any] = {field: None for file, field in OPTIONAL_NETWORKS.items() if file in left_out}
    if "generator" in lacking:
        lacking["generator_training"] = {}
    files = {file: card.files[file] for file in blobs}
    card = _changed(card, name=name or card.name, files=files, **lacking)
    _write(target, blobs, card, overwrite=False)
    return card


def save_generator(
    folder: Path, config: GeneratorConfig, weights: Mapping[str, Tensor], training: Mapping[str, Any]
) -> ModelCard:
    """Put a generator into a model folder, or in the place of the one there; the identity stays.

    A ControlNet of the one there goes with it.

    Args:
        weights: its state dict; written in half precision.
        training: what the card says of how it was made.

    Raises:
        InputError: there is no model, the generator does not read its factors, or it cannot be written. The
            folder is as it was.
    """
    card = read_card(folder)
    if difference := _misfit(config, _meduet_config(card)):
        raise InputError(f"{folder.name}: this generator was made for another model: {difference}.")
    blob = packed_weights(weights)
    others = {name: file for name, file in card.files.items() if name != CONTROL_FILE}
    card = _changed(
        card,
        files={**others, GENERATOR_FILE: _weight_file(blob)},
        generator=asdict(config),
        generator_training=dict(training),
        control=None,
    )
    _add(folder, GENERATOR_FILE, blob, card)
    (folder / CONTROL_FILE).unlink(missing_ok=True)
    return card


def save_control(
    folder: Path, control: ControlNet, classes: Sequence[MaskClass], training: Mapping[str, Any]
) -> ModelCard:
    """Put a ControlNet of the folder's generator beside it, or in the place of the one there.

    Args:
        control: written in half precision.
        classes: of its masks, the background first.
        training: what the card says of how it was made.

    Raises:
        InputError: there is no generator, the ControlNet does not fit it, or it cannot be written. The folder
            is as it was.
    """
    card = read_card(folder)
    if card.generator is None:
        raise InputError(f"{folder.name}: this model has no generator that a ControlNet could steer.")
    if len(classes) != control.num_classes or not _has_shapes_of(
        control, ControlNet(Generator(_generator_config(card)), control.num_classes)
    ):
        raise InputError(f"{folder.name}: this ControlNet was made for another generator, or other classes.")
    blob = packed_weights(control.state_dict())
    control_card = ControlCard(
        classes=tuple(classes),
        generator_sha256=card.files[GENERATOR_FILE].sha256,
        training=dict(training),
    )
    card = _changed(card, files={**card.files, CONTROL_FILE: _weight_file(blob)}, control=control_card)
    _add(folder, CONTROL_FILE, blob, card)
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
    """Put a segmenter into a model folder, or in the place of the one there; the identity stays.

    Args:
        weights: its state dict; written in half precision.
        classes: one for each output, the background first.
        modalities: of the scans it was trained on.
        training: what the card says of how it was made.
        sequences: of the scans that it reads together, in this order.

    Raises:
        InputError: there is no model, the segmenter does not fit it or its classes, or it cannot be written.
            The folder is as it was.
    """
    about = {
        "classes": tuple(classes),
        "modalities": tuple(modalities),
        "training": dict(training),
        "sequences": tuple(sequences),
    }
    return _save_analyst(folder, SEGMENTER_FILE, SegmenterCard, build_segmenter, config, weights, about)


def save_classifier(
    folder: Path,
    config: ClassifierConfig,
    weights: Mapping[str, Tensor],
    classes: Sequence[str],
    modalities: Sequence[Modality],
    training: Mapping[str, Any],
) -> ModelCard:
    """Put a classifier into a model folder, or in the place of the one there, as `save_segmenter` does."""
    about = {"classes": tuple(classes), "modalities": tuple(modalities), "training": dict(training)}
    return _save_analyst(folder, CLASSIFIER_FILE, ClassifierCard, build_classifier, config, weights, about)


def save_figures(
    folder: Path, figures: Mapping[str, Any], of: Literal["model", "segmenter", "classifier"] = "model"
) -> ModelCard:
    """Put what was measured of a model, or of a network it has, on its card; nothing else changes."""
    card = read_card(folder)
    if of == "model":
        card = _changed(card, figures=dict(figures))
    else:
        network = getattr(card, of)
        if network is None:
            raise InputError(f"{folder.name}: this model has no {of} whose figures could be kept.")
        card = _changed(card, **{of: network.model_copy(update={"figures": dict(figures)})})
    with write_atomically(folder / CARD_FILE, overwrite=True) as temporary:
        temporary.write_text(_card_text(card), encoding="utf-8")
    return card


def with_tuples(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes as configurations have them; JSON has lists where those have tuples."""
    return {name: tuple(size) if isinstance(size, list) else size for name, size in sizes.items()}


def packed_weights(weights: Mapping[str, Tensor]) -> bytes:
    """A state dict as the file of a network beside MeDUET holds it, in half precision."""
    return save({name: tensor.half().contiguous() for name, tensor in weights.items()})


def _save_analyst(
    folder: Path,
    file: str,
    record: type[SegmenterCard | ClassifierCard],
    build: Callable[[Any, TokenizerCard], nn.Module],
    config: UNETRConfig | ClassifierConfig,
    weights: Mapping[str, Tensor],
    about: Mapping[str, Any],
) -> ModelCard:
    card, what = read_card(folder), OPTIONAL_NETWORKS[file]
    blob = packed_weights(weights)
    try:
        with torch.device("meta"):
            network = build(config, card.tokenizer)
        if _shapes(network.state_dict()) != _shapes(weights):
            raise ValueError("its weights are not those of its sizes")
        added = record.model_validate({"config": asdict(config), **about})
        card = _changed(card, files={**card.files, file: _weight_file(blob)}, **{what: added})
    except ValueError as error:
        raise InputError(f"{folder.name}: this {what} does not fit the model: {_sentence(error)}.") from error
    _add(folder, file, blob, card)
    return card


def _sentence(error: ValueError) -> str:
    """What is wrong, in one sentence without its stop."""
    first = (
        error.errors()[0]["msg"].removeprefix("Value error, ")
        if isinstance(error, ValidationError)
        else error
    )
    return str(first).rstrip(".")


def _write(folder: Path, blobs: dict[str, bytes], card: ModelCard, overwrite: bool) -> None:
    """Write a folder of weight files and their card, all of it or nothing."""
    blobs = {**blobs, CARD_FILE: _card_text(card).encode()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder.name}: no folder can be made there ({reason(error)}).") from error
    check_room(folder, sum(len(blob) for blob in blobs.values()))
    with write_all_atomically([folder / name for name in blobs], overwrite) as temporaries:
        for temporary, blob in zip(temporaries, blobs.values(), strict=True):
            temporary.write_bytes(blob)


def _add(folder: Path, name: str, blob: bytes, card: ModelCard) -> None:
    """Write a weight file together with the card that names it, both or neither."""
    blobs = {name: blob, CARD_FILE: _card_text(card).encode()}
    check_room(folder, sum(map(len, blobs.values())))
    with write_all_atomically([folder / each for each in blobs], overwrite=True) as temporaries:
        for temporary, content in zip(temporaries, blobs.values(), strict=True):
            temporary.write_bytes(content)


def _has_shapes_of(one: nn.Module, other: nn.Module) -> bool:
    return _shapes(one.state_dict()) == _shapes(other.state_dict())


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in weights.items()}


def _changed(card: ModelCard, **changes: Any) -> ModelCard:
    """The changed card, checked, and as it will be read again: JSON knows no tuples."""
    return ModelCard.model_validate_json(card.model_copy(update=changes).model_dump_json())


def _weight_file(blob: bytes) -> WeightFile:
    return WeightFile(sha256=hashlib.sha256(blob).hexdigest(), num_bytes=len(blob))


def _card_text(card: ModelCard) -> str:
    return json.dumps(card.model_dump(mode="json"), indent=2) + "\n"


_building = Lock()  # two threads that ask for one model must not build it twice
_built: dict[tuple[str, str], Model] = {}  # by card and device; the last `KEPT_MODELS` that were asked for
KEPT_MODELS = 2


def _checked_bytes(folder: Path, name: str, expected: WeightFile) -> bytes:
    """The bytes of a weight file, whose size and digest are those on the card."""
    path = folder / name
    if not path.is_file():
        raise InputError(
            f"{folder.name}/{name}: the file is missing; the model is incomplete. Fetch it again."
        )
    if path.stat().st_size != expected.num_bytes:
        raise InputError(
            f"{folder.name}/{name}: {path.stat().st_size} bytes instead of {expected.num_bytes}: "
            "cut short, or replaced. Fetch the model again."
        )
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != expected.sha256:
        raise InputError(
            f"{folder.name}/{name}: its sha256 is not the one on the card: damaged, or replaced."
        )
    return content


def _build(card: ModelCard, contents: Mapping[str, bytes], device: torch.device, folder_name: str) -> Model:
    """The networks of a card, filled with weights that have been checked."""

    def fill(network: nn.Module, name: str) -> None:
        try:
            weights = load(contents[name])
            network.load_state_dict({key: weight.float() for key, weight in weights.items()})
        except (SafetensorError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise InputError(
                f"{folder_name}/{name}: not the weights that the card describes: {reason}"
            ) from error
        network.eval().requires_grad_(False).to(device)

    try:
        tokenizer = build_tokenizer(card.tokenizer.name, card.tokenizer.config)
        meduet = MeDUET(_meduet_config(card))
        generator = Generator(_generator_config(card)) if card.generator is not None else None
        segmenter = card.segmenter and build_segmenter(
            UNETRConfig(**with_tuples(card.segmenter.config)), card.tokenizer
        )
        classifier = card.classifier and build_classifier(
            ClassifierConfig(**with_tuples(card.classifier.config)), card.tokenizer
        )
        for profile in card.profiles.values():
            if profile.knots:
                IntensityProfile(profile.name, profile.knots)  # refuses knots that do not increase
    except (TypeError, ValueError) as error:
        raise InputError(f"{folder_name}/{CARD_FILE}: {error}") from error
    fill(tokenizer, TOKENIZER_FILE)
    fill(meduet, MEDUET_FILE)
    if generator is not None:
        if difference := _misfit(generator.config, meduet.config):
            raise InputError(f"{folder_name}/{CARD_FILE}: generator: {difference}.")
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
        latent_mean=torch.tensor(card.tokenizer.latent_mean).view(1, -1, 1, 1, 1),
        latent_std=torch.tensor(card.tokenizer.latent_std).view(1, -1, 1, 1, 1),
        known_styles=styles,
        generator=generator,
        control=control,
        segmenter=segmenter,
        classifier=classifier,
    )


def _meduet_config(card: ModelCard) -> MeDUETConfig:
    return MeDUETConfig(**with_tuples(card.meduet))


def _generator_config(card: ModelCard) -> GeneratorConfig:
    return GeneratorConfig(**with_tuples(card.generator or {}))


def _misfit(generator: GeneratorConfig, meduet: MeDUETConfig) -> str | None:
    """What a generator reads otherwise than this MeDUET writes it, if anything."""
    for name in ("latent_channels", "patch_size", "content_width", "style_width"):
        reads, writes = getattr(generator, name), getattr(meduet, name)
        if reads != writes:
            return f"{name} is {reads}, but the model's {writes}"
    return None
