"""What a DICOM header, or the JSON beside a converted file, says of the scanner: never of the patient."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from napari_meduet.errors import InputError
from napari_meduet.volumes.dicom_frames import BoundedReader
from napari_meduet.volumes.files import sidecar_path
from napari_meduet.volumes.safe_open import open_regular

# What may tell domains apart (M-05). A list of what is allowed, since a header has many names of persons.
SCANNER_TAGS = (
    "AcquisitionContrast", "ContrastBolusAgent", "ContrastBolusRoute", "ConvolutionKernel",
    "DeviceSerialNumber", "EchoTime", "FilterType", "InstitutionName", "KVP", "MagneticFieldStrength",
    "Manufacturer", "ManufacturerModelName", "Modality", "RepetitionTime", "ScanningSequence", "SequenceName",
    "SequenceVariant", "SliceThickness", "SoftwareVersions", "StationName",
)  # fmt: skip
IN_SIDECARS = {"ManufacturerModelName": "ManufacturersModelName"}  # BIDS has its own spelling
UNKNOWN = "unknown"


def check_tags(keywords: Sequence[str]) -> None:
    """Raises InputError for a tag that may not, or cannot, tell domains apart."""
    for keyword in keywords:
        if keyword not in SCANNER_TAGS:
            raise InputError(f"dicom:{keyword} cannot name a domain; choose from {', '.join(SCANNER_TAGS)}.")


def tags_of_dicom(path: Path, keywords: Sequence[str]) -> dict[str, str]:
    """The values of tags in a DICOM file whose frames were read before; what is absent is left out."""
    with open_regular(path) as file, BoundedReader(file) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's remarks quote values; those may name the patient
        dataset = pydicom.dcmread(
            stream,
            stop_before_pixels=True,
            force=True,
            specific_tags=[*keywords, "SharedFunctionalGroupsSequence"],
        )
        found = {keyword: _value(dataset, keyword) for keyword in keywords}
    return {keyword: _text(value) for keyword, value in found.items() if value not in (None, "")}


def sidecar_of(path: Path) -> dict[str, Any]:
    """The JSON object beside a converted file, as dcm2niix and BIDS write it; empty if there is none."""
    beside = sidecar_path(path)
    try:
        content = json.loads(beside.read_bytes()) if beside.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def tags_of_sidecar(sidecar: dict[str, Any], keywords: Sequence[str]) -> dict[str, str]:
    """The values of tags in such a JSON object."""
    found = {
        keyword: sidecar.get(keyword, sidecar.get(IN_SIDECARS.get(keyword, keyword))) for keyword in keywords
    }
    return {keyword: _text(value) for keyword, value in found.items() if value not in (None, "", [])}


def domain_of_tags(tags: dict[str, str], keywords: Sequence[str]) -> str:
    """The domain that these values stand for, as in "SIEMENS-B30f"."""
    return "-".join(tags.get(keyword, UNKNOWN) for keyword in keywords)


def _value(dataset: Dataset, keyword: str) -> Any:
    """At the top, or in a functional group that all frames of an enhanced file share."""
    if keyword in dataset:
        return dataset.get(keyword)
    for shared in dataset.get("SharedFunctionalGroupsSequence") or []:
        for element in shared:
            if element.VR == "SQ" and element.value and keyword in element.value[0]:
                return element.value[0].get(keyword)
    return None


def _text(value: Any) -> str:
    parts = value if isinstance(value, list | tuple | MultiValue) else [value]
    return " ".join(" ".join(str(part).split()) for part in parts)
