"""What a layout says of a scan before anybody opened it, and where it may take domain and patient from."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from meduet_training.data.cohort.scan import Split
from meduet_training.data.cohort.scanner_tags import check_tags
from napari_meduet.errors import InputError
from napari_meduet.volumes.volume import Modality

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
LABEL_WORDS = ("seg", "segmentation", "dseg", "probseg", "label", "labels", "mask")
LABEL_NAME = re.compile(rf"[_-]({'|'.join(LABEL_WORDS)})$", re.IGNORECASE)
NON_COMMERCIAL = re.compile(r"\bNC\b|non-?commercial", re.IGNORECASE)

Kind = Literal["folder", "name", "column", "dicom"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A scan as a layout names it."""

    path: Path  # a file, or a folder of DICOM files
    domain: str  # where the domain comes from DICOM tags, they replace it
    patient: str
    patient_in_header: bool = False  # the PatientID of a DICOM header counts more
    patient_is_guess: bool = False  # nothing named one, so the file's own name does
    modality: Modality | None = None  # None: the file or its values tell
    sequence: str | None = None
    split: Split | None = None
    licence: str = ""
    may_train: bool = True
    labels: Path | None = None
    volume_index: int | None = None


@dataclass(frozen=True)
class Origin:
    """Where a domain or a patient comes from: "folder:1", "name:REGEX", "column:site", "dicom:KVP"."""

    kind: Kind
    value: str

    @classmethod
    def parse(cls, text: str) -> "Origin":
        """The origin that a person wrote.

        Raises:
            InputError: it cannot be meant.
        """
        kind, _, value = text.partition(":")
        if kind not in get_args(Kind) or not value:
            raise InputError(
                f"{text!r} says not where to look; write folder:LEVEL (1 is below the folder scanned), "
                "name:REGEX, column:NAME or dicom:TAG,TAG."
            )
        origin = cls(cast(Kind, kind), value)
        if kind == "folder" and not (value.isdecimal() and int(value) > 0):
            raise InputError(f"{text!r}: a folder's level is a whole number from 1.")
        if kind == "name":
            try:
                re.compile(value)
            except re.error as error:
                raise InputError(f"{text!r} is no regular expression ({error}).") from error
        if kind == "dicom":
            check_tags(origin.keywords)
        return origin

    @property
    def keywords(self) -> tuple[str, ...]:
        """The DICOM tags, for an origin of that kind; none otherwise."""
        return tuple(self.value.split(",")) if self.kind == "dicom" else ()


def stem_of(path: Path) -> str:
    """A file's name without the ending that tells the format."""
    for suffix in IMAGE_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def is_image(name: str) -> bool:
    """Whether a file of that name is one of our formats other than DICOM."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_label(path: Path) -> bool:
    """Whether the name says that a file is a segmentation: `X_seg.nii.gz`, `sub-01_dseg.nii.gz`."""
    return LABEL_NAME.search(stem_of(path)) is not None


def labels_beside(path: Path) -> Path | None:
    """The segmentation that lies beside a scan under its name."""
    for word in LABEL_WORDS:
        for separator in "_-":
            for suffix in IMAGE_SUFFIXES:
                labels = path.with_name(f"{stem_of(path)}{separator}{word}{suffix}")
                if labels.is_file():
                    return labels
    return None


def allows_training(licence: str) -> bool:
    """Whether a model trained on the scan may be shipped: not under a non-commercial licence."""
    return NON_COMMERCIAL.search(licence) is None
