"""The model card: plain data beside the weights of a model (specification, sections 2-4).

A card holds everything that decides what a latent means (tokenizer, standardisation, network, intensity
profiles, spacing), where the model comes from, its metrics, and the digest of every weight file. Unknown keys
are refused, and nothing in a card is executed (docs/reliability.md, section 2). `loading.py` opens the
weights.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_meduet.errors import InputError

CARD_FILE = "card.json"
TOKENIZER_FILE = "tokenizer.safetensors"
MEDUET_FILE = "meduet.safetensors"
STYLES_FILE = "styles.safetensors"
GENERATOR_FILE = "generator.safetensors"
CONTROL_FILE = "control.safetensors"
SEGMENTER_FILE = "segmenter.safetensors"
CLASSIFIER_FILE = "classifier.safetensors"
WEIGHT_FILES = (
    TOKENIZER_FILE,
    MEDUET_FILE,
    STYLES_FILE,
    GENERATOR_FILE,
    CONTROL_FILE,
    SEGMENTER_FILE,
    CLASSIFIER_FILE,
)
LARGEST_CARD_BYTES = 4 * 1024**2

Modality = Literal["CT", "MR"]


class _Record(BaseModel):
    """A part of the card. It cannot be changed after reading, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class WeightFile(_Record):
    """Digest and size of one weight file; both are checked before the file is opened."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    num_bytes: int = Field(gt=0)


class TokenizerCard(_Record):
    """The tokenizer of the model, and the standardisation of its latents.

    Attributes:
        name, config: as in the tokenizer registry (`tokenizers/registry.py`).
        latent_mean, latent_std: mean and standard deviation of each latent channel.
    """

    name: str
    config: dict[str, Any]
    latent_mean: tuple[float, ...]
    latent_std: tuple[float, ...]

    @model_validator(mode="after")
    def _one_pair_per_channel(self) -> "TokenizerCard":
        if len(self.latent_mean) != len(self.latent_std) or not self.latent_mean:
            raise ValueError("latent_mean and latent_std need one number per latent channel each")
        if min(self.latent_std) <= 0:
            raise ValueError("latent_std divides the latent and must be positive")
        return self


class ProfileCard(_Record):
    """The intensity profile of one modality (M-03).

    Attributes:
        knots: pairs of value and normalised intensity for CT; None for MR, whose profile is fitted to each
            scan.
    """

    name: str
    knots: tuple[tuple[float, float], ...] | None = None


class TrainingSource(_Record):
    """One domain of the training data, with its number of scans and their licence."""

    domain: str
    modality: Modality
    num_scans: int = Field(gt=0)
    licence: str


class MaskClass(_Record):
    """A class of a mask, with its number in the mask and its name."""

    label: int = Field(ge=0)
    name: str = Field(min_length=1)


def _begin_with_background(classes: tuple[MaskClass, ...]) -> tuple[MaskClass, ...]:
    labels = [each.label for each in classes]
    if labels[0] != 0 or len(set(labels)) != len(labels):
        raise ValueError(
            "the first class must be the background, label 0, and each class needs another label"
        )
    return classes


MaskClasses = Annotated[
    tuple[MaskClass, ...], Field(min_length=2), AfterValidator(_begin_with_background)
]  # the background first


class ControlCard(_Record):
    """A ControlNet of a generator (M-40).

    Attributes:
        classes: the classes of its masks.
        generator_sha256: digest of the generator weights that it was trained with. It works with no others.
        training: how it was trained.
    """

    classes: MaskClasses
    generator_sha256: str
    training: dict[str, Any] = {}

    @property
    def labels(self) -> tuple[int, ...]:
        """The label of each class, in order."""
        return tuple(each.label for each in self.classes)


class _AnalystCard(_Record):
    """A segmenter or a classifier.

    Attributes:
        config: sizes of the network.
        modalities: modalities of the training scans.
        training: how the network was trained.
        metrics: measured quality of the network.
    """

    config: dict[str, Any]
    modalities: tuple[Modality, ...] = Field(min_length=1)
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}


class SegmenterCard(_AnalystCard):
    """A latent UNETR. Output channel k of the network is the score of class k.

    Attributes:
        classes: the classes in the order of the output channels, the background first.
        sequences: names of the MR sequences that the network reads together, in the order of its input; empty
            if it reads one scan.
    """

    classes: MaskClasses
    sequences: tuple[str, ...] = ()


class ClassifierCard(_AnalystCard):
    """A classifier of scans. Output k of the network is the score of class k."""

    classes: tuple[str, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _each_class_once(self) -> "ClassifierCard":
        if len(set(self.classes)) != len(self.classes) or not all(self.classes):
            raise ValueError("each class needs another name")
        return self


class ModelCard(_Record):
    """The model card.

    Attributes:
        name, description: for the reader.
        modalities: the modalities that the model was trained on.
        tokenizer: tokenizer and standardisation of its latents.
        meduet: sizes of the MeDUET network.
        generator: sizes of the generator; None if the folder has none.
        generator_training: how the generator was trained.
        control: the ControlNet of the generator; None if the folder has none.
        segmenter, classifier: networks that read the model's latents; None if the folder has none.
        profiles: the intensity profile of each modality.
        working_spacing_mm: voxel size of the working grid.
        domains: names of the domains of the domain classifiers.
        training_data: the domains of the training data.
        training, seeds, commit: how the model was trained.
        metrics: measured quality of the model.
        files: size and digest of every weight file in the folder.
    """

    name: str = Field(min_length=1)
    kind: Literal["meduet"] = "meduet"
    description: str
    modalities: tuple[Modality, ...] = Field(min_length=1)
    tokenizer: TokenizerCard
    meduet: dict[str, Any]
    generator: dict[str, Any] | None = None
    generator_training: dict[str, Any] = {}
    control: ControlCard | None = None
    segmenter: SegmenterCard | None = None
    classifier: ClassifierCard | None = None
    profiles: dict[Modality, ProfileCard]
    working_spacing_mm: float = Field(gt=0, le=10)
    domains: tuple[str, ...] = ()
    training_data: tuple[TrainingSource, ...] = ()
    training: dict[str, Any] = {}
    seeds: dict[str, int] = {}
    commit: str | None = None
    metrics: dict[str, Any] = {}
    files: dict[str, WeightFile] = {}

    @model_validator(mode="after")
    def _a_profile_per_modality(self) -> "ModelCard":
        if set(self.profiles) != set(self.modalities):
            raise ValueError("profiles needs exactly one entry for each modality")
        if any(name == "CT" and profile.knots is None for name, profile in self.profiles.items()):
            raise ValueError("profiles: a CT profile needs knots in HU")
        return self

    @model_validator(mode="after")
    def _a_generator_with_its_weights(self) -> "ModelCard":
        if (self.generator is not None) != (GENERATOR_FILE in self.files):
            raise ValueError(
                f"generator: a generator needs both its sizes here and {GENERATOR_FILE} in files"
            )
        return self

    @model_validator(mode="after")
    def _a_control_of_its_generator(self) -> "ModelCard":
        if (self.control is not None) != (CONTROL_FILE in self.files):
            raise ValueError(f"control: a ControlNet needs both its classes here and {CONTROL_FILE} in files")
        generator = self.files.get(GENERATOR_FILE)
        if self.control and (generator is None or self.control.generator_sha256 != generator.sha256):
            raise ValueError("control: the ControlNet was trained with another generator than this model's")
        return self

    @model_validator(mode="after")
    def _analysts_with_their_weights(self) -> "ModelCard":
        for name, card, file in (
            ("segmenter", self.segmenter, SEGMENTER_FILE),
            ("classifier", self.classifier, CLASSIFIER_FILE),
        ):
            if (card is not None) != (file in self.files):
                raise ValueError(f"{name}: it needs both its entry here and {file} in files")
            if card is not None and card.config.get("num_classes") != len(card.classes):
                raise ValueError(f"{name}: num_classes in config must be the number of classes")
            if card is not None and not set(card.modalities) <= set(self.modalities):
                raise ValueError(f"{name}: its modalities must be modalities of the model")
        return self

    @property
    def sha256(self) -> str:
        """The identity of the model: a digest of everything that decides what latents and styles mean.

        Descriptions, metrics, known styles and the networks that only read latents (generator, ControlNet,
        segmenter, classifier) are left out, so that style files stay valid when these change.
        """
        deciding = self.model_dump(
            mode="json", include={"tokenizer", "meduet", "profiles", "working_spacing_mm"}
        )
        deciding["files"] = {
            name: self.files[name].sha256 for name in (TOKENIZER_FILE, MEDUET_FILE) if name in self.files
        }
        text = json.dumps(deciding, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def read_card(folder: Path) -> ModelCard:
    """Return the card of a model folder after checking every field.

    Raises:
        InputError: there is no card, or a field is invalid.

    Examples:
        >>> card = read_card(Path("models/mine"))
        >>> card.tokenizer.name, card.profiles["CT"].name
        ('wavelet', 'ct-full')
    """
    path = folder / CARD_FILE
    if not path.is_file():
        raise InputError(
            f"{folder.name}: this folder holds no {CARD_FILE}, so it is no model. Choose a model folder."
        )
    if path.stat().st_size > LARGEST_CARD_BYTES:
        raise InputError(
            f"{folder.name}/{CARD_FILE}: larger than 4 MiB, which is too large for a model card."
        )
    try:
        card = ModelCard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the card"
        raise InputError(
            f"{folder.name}/{CARD_FILE}: {where}: {first['msg']}. The model needs another version of "
            "napari-meduet, or its card was edited."
        ) from error
    for name in (TOKENIZER_FILE, MEDUET_FILE):
        if name not in card.files:
            raise InputError(f"{folder.name}/{CARD_FILE}: files: {name} is missing.")
    for name in card.files:
        if name not in WEIGHT_FILES:
            raise InputError(f"{folder.name}/{CARD_FILE}: files: {name} is no weight file of this version.")
    return card
