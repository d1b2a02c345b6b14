"""The model card: plain data beside the weights of a model (specification, sections 2-4).

File checks follow docs/reliability.md, section 2.

A card holds everything that decides what a number in the latent means (tokenizer, standardisation, network,
intensity profile, spacing), where the model comes from, what was measured of it, and the digest of every
weight file. It is data: unknown keys are refused, and nothing in it is ever executed. Opening the weights is
`files.py`'s business.
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
    """A part of the card: fixed once read, and without room for what nobody declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class WeightFile(_Record):
    """Digest and size of one file, checked before it is opened."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    num_bytes: int = Field(gt=0)


class TokenizerCard(_Record):
    """Which tokenizer writes the latents, and the numbers that standardise them per channel."""

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
    """The intensity profile of one modality (M-03): knots for CT; none for MR, fitted to every scan."""

    name: str
    knots: tuple[tuple[float, float], ...] | None = None


class TrainingSource(_Record):
    """One domain of the training data: how many scans it gave, and under which licence."""

    domain: str
    modality: Modality
    num_scans: int = Field(gt=0)
    licence: str


class MaskClass(_Record):
    """A class of masks: its number in a mask, and its name."""

    label: int = Field(ge=0)
    name: str = Field(min_length=1)


def _begin_with_background(classes: tuple[MaskClass, ...]) -> tuple[MaskClass, ...]:
    labels = [each.label for each in classes]
    if labels[0] != 0 or len(set(labels)) != len(labels):
        raise ValueError("the first is the background, label 0, and each has a label of its own")
    return classes


MaskClasses = Annotated[
    tuple[MaskClass, ...], Field(min_length=2), AfterValidator(_begin_with_background)
]  # the background first


class ControlCard(_Record):
    """A ControlNet beside a generator (M-40).

    Attributes:
        classes: of the masks that it follows.
        generator_sha256: of the weights it was trained with; it knows no others.
        training: how it was made.
    """

    classes: MaskClasses
    generator_sha256: str
    training: dict[str, Any] = {}

    @property
    def labels(self) -> tuple[int, ...]:
        return tuple(each.label for each in self.classes)


class _AnalystCard(_Record):
    """A network that says what is in a scan.

    Attributes:
        config: its sizes.
        modalities: of the scans it was trained on.
        training: how it was made.
        figures: what was measured of it.
    """

    config: dict[str, Any]
    modalities: tuple[Modality, ...] = Field(min_length=1)
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}


class SegmenterCard(_AnalystCard):
    """A latent UNETR. Output k of the network scores the k-th of the classes.

    Attributes:
        sequences: of the scans of a patient that it reads together, in this order; none where it reads one.
    """

    classes: MaskClasses
    sequences: tuple[str, ...] = ()


class ClassifierCard(_AnalystCard):
    """A classifier of scans. Output k of the network scores the k-th of the classes."""

    classes: tuple[str, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _each_class_once(self) -> "ClassifierCard":
        if len(set(self.classes)) != len(self.classes) or not all(self.classes):
            raise ValueError("each of the classes has a name of its own")
        return self


class ModelCard(_Record):
    """The card. `files` names the digest of every weight file in the folder.

    Attributes:
        generator: the sizes of a generator that reads this model's factors, where the folder has one.
        generator_training: how it was made.
        control: the classes of a ControlNet on that generator, where the folder has one.
        segmenter, classifier: sizes and classes of networks on this model's latents, where it has them.
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
            raise ValueError("profiles needs one entry for each of the modalities, and no other")
        if any(name == "CT" and profile.knots is None for name, profile in self.profiles.items()):
            raise ValueError("profiles: a CT profile is fixed in HU and needs its knots")
        return self

    @model_validator(mode="after")
    def _a_generator_with_its_weights(self) -> "ModelCard":
        if (self.generator is not None) != (GENERATOR_FILE in self.files):
            raise ValueError(f"generator: the sizes of a generator come with {GENERATOR_FILE} in files")
        return self

    @model_validator(mode="after")
    def _a_control_of_its_generator(self) -> "ModelCard":
        if (self.control is not None) != (CONTROL_FILE in self.files):
            raise ValueError(f"control: the classes of a ControlNet come with {CONTROL_FILE} in files")
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
                raise ValueError(f"{name}: its sizes and classes come with {file} in files")
            if card is not None and card.config.get("num_classes") != len(card.classes):
                raise ValueError(f"{name}: num_classes of its config counts the classes")
            if card is not None and not set(card.modalities) <= set(self.modalities):
                raise ValueError(f"{name}: its modalities are some of the model's")
        return self

    @property
    def sha256(self) -> str:
        """The identity of the model: a digest of all that decides what a latent or a style vector means.

        Prose, figures, the list of known styles and the networks that only read them (generator, segmenter,
        classifier) are left out, so that correcting a sentence of the card does not orphan the prototypes
        people have made.
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
    """The card of a model folder, every field checked.

    Raises:
        InputError: there is no card, or it says something it cannot mean.
    """
    path = folder / CARD_FILE
    if not path.is_file():
        raise InputError(f"{folder.name}: this folder holds no {CARD_FILE}, so it is no model.")
    if path.stat().st_size > LARGEST_CARD_BYTES:
        raise InputError(f"{folder.name}/{CARD_FILE}: too large for a model card.")
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
            raise InputError(f"{folder.name}/{CARD_FILE}: files: {name} is no file of a model.")
    return card
