"""Scans in the layouts of whole communities: BIDS, and the Medical Segmentation Decathlon's (nnU-Net's)."""

import json
import re
from pathlib import Path
from typing import Any

import polars as pl

from meduet_training.data.cohort.candidates import (
    IMAGE_SUFFIXES,
    Candidate,
    Origin,
    allows_training,
    is_image,
    is_label,
    stem_of,
)
from meduet_training.data.cohort.scan import Split
from napari_meduet.errors import InputError
from napari_meduet.volumes.volume import Modality

BIDS_DATATYPES = ("anat", "ct")
PARTICIPANTS = "participants.tsv"
DATASET = "dataset.json"
FOLDERS: dict[str, Split] = {"imagesTr": "train", "imagesTs": "test"}
CHANNEL_NUMBER = re.compile(r"_\d{4}$")


def in_bids(root: Path, domain_from: Origin | None = None) -> list[Candidate]:
    """The anatomical scans of a BIDS dataset; the domain is the dataset, or a column of participants.tsv.

    Raises:
        InputError: there is no such table or column, or a subject is not in it.
    """
    column = domain_from.value if domain_from and domain_from.kind == "column" else None
    sites = _participants(root, column) if column else {}
    candidates = []
    for datatype in BIDS_DATATYPES:
        for path in sorted([*root.glob(f"sub-*/{datatype}/*"), *root.glob(f"sub-*/ses-*/{datatype}/*")]):
            if not is_image(path.name) or is_label(path) or path.name.startswith("."):
                continue
            subject, *entities, suffix = stem_of(path).split("_")
            is_ct = "ct" in (datatype, suffix.lower())
            if column and subject not in sites:
                raise InputError(f"{PARTICIPANTS} has no {column} for {path.name}; add the subject.")
            candidates.append(
                Candidate(
                    path=path,
                    domain=sites.get(subject, root.resolve().name),
                    patient=subject,
                    modality="CT" if is_ct else "MR",
                    sequence=None
                    if is_ct
                    else suffix + "+contrast" * any(word.startswith("ce-") for word in entities),
                )
            )
    return candidates


def in_decathlon(root: Path) -> list[Candidate]:
    """The images of a dataset.json with imagesTr and imagesTs; the latter are for testing.

    Raises:
        InputError: dataset.json is no description of a dataset.
    """
    dataset = _description(root)
    named = dataset.get("channel_names") or dataset.get("modality")
    if not isinstance(named, dict) or not named:
        raise InputError(f"{root.name}/{DATASET} names no channels (channel_names, or modality).")
    channels = [str(named[number]) for number in sorted(named, key=int)]
    licence = str(dataset.get("licence") or dataset.get("license") or "")
    candidates = []
    for folder, split in FOLDERS.items():
        for path in sorted(path for path in (root / folder).glob("*") if is_image(path.name)):
            if path.name.startswith("."):
                continue
            numbered = CHANNEL_NUMBER.search(stem_of(path))
            case = CHANNEL_NUMBER.sub("", stem_of(path))
            shown = [int(numbered.group()[1:])] if numbered else range(len(channels))
            for channel in shown:
                modality = _modality(channels[channel]) if channel < len(channels) else None
                candidates.append(
                    Candidate(
                        path=path,
                        domain=root.resolve().name,
                        patient=case,
                        modality=modality,
                        sequence=channels[channel] if modality == "MR" else None,
                        split=split,
                        licence=licence,
                        may_train=allows_training(licence),
                        labels=_labels(root / folder.replace("images", "labels"), case),
                        volume_index=None if numbered or len(channels) == 1 else channel,
                    )
                )
    return candidates


def _participants(root: Path, column: str) -> dict[str, str]:
    try:
        table = pl.read_csv(root / PARTICIPANTS, separator="\t", infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"{root.name} has no {PARTICIPANTS} that can be read, to take column:{column} from."
        ) from error
    missing = {"participant_id", column} - set(table.columns)
    if missing:
        raise InputError(f"{PARTICIPANTS} has no column {', '.join(sorted(missing))}.")
    rows = zip(table["participant_id"], table[column], strict=True)
    return {subject: site for subject, site in rows if subject and site}


def _description(root: Path) -> dict[str, Any]:
    try:
        dataset = json.loads((root / DATASET).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{root.name} has no {DATASET} that can be read; it describes the channels."
        ) from error
    if not isinstance(dataset, dict):
        raise InputError(f"{root.name}/{DATASET} is no description of a dataset.")
    return dataset


def _modality(channel: str) -> Modality | None:
    """CT by its name; what is not, in these datasets, is MR, but for channels named for a normalisation."""
    if channel.upper() == "CT":
        return "CT"
    return None if channel.lower() in ("nonorm", "zscore", "rescale_to_0_1") else "MR"


def _labels(folder: Path, case: str) -> Path | None:
    found = (folder / f"{case}{suffix}" for suffix in IMAGE_SUFFIXES)
    return next((path for path in found if path.is_file()), None)
