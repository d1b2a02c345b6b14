"""Which scans there are: one record each, with the domain it stands for and the patient it must not leave.

This reads the `index.json` beside a set of volumes. Patients become hashes here and stay hashes everywhere.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from napari_meduet.errors import InputError
from napari_meduet.volumes.volume import Modality

INDEX = "index.json"
Split = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One scan of a cohort."""

    path: Path
    domain: str  # site or scanner; for MR with the sequence: those of one site look less alike than sites do
    patient: str  # a hash: scans of one patient share it
    modality: Modality
    split: Split
    licence: str
    may_train: bool  # the licence allows that a model trained on the scan is shipped
    sequence: str | None = None
    labels_path: Path | None = None


def read_cohort(folder: Path) -> list[Scan]:
    """The scans that `index.json` in a folder lists, in its order.

    Raises:
        InputError: there is no index, a record lacks a field or cannot be meant, or a scan is missing.
    """
    index = folder / INDEX
    if not index.is_file():
        raise InputError(
            f"{folder.name} holds no {INDEX}, the list of its scans; give the folder that has one."
        )
    try:
        records = json.loads(index.read_bytes())
    except ValueError as error:
        raise InputError(f"{folder.name}/{INDEX} is no JSON ({error}); write it again.") from error
    if not isinstance(records, list) or not records:
        raise InputError(f"{folder.name}/{INDEX} must be a list with a record for each scan.")
    return [_scan(folder, number, record) for number, record in enumerate(records, start=1)]


def trainable(scans: list[Scan]) -> list[Scan]:
    """The scans a shipped model may learn from: the train split, without non-commercial licences.

    Raises:
        InputError: there is none.
    """
    chosen = [scan for scan in scans if scan.split == "train" and scan.may_train]
    if not chosen:
        raise InputError(
            f"None of the {len(scans)} scans may be trained on: {INDEX} needs records of split 'train' and "
            "licence_grade 'A'."
        )
    return chosen


def _scan(folder: Path, number: int, record: Any) -> Scan:
    where = f"{folder.name}/{INDEX}: record {number}"
    try:
        sequence = record["sequence"] if record["modality"] == "MR" else None
        scan = Scan(
            path=folder / record["path"],
            domain=record["domain"] + (f"-{sequence}" if sequence else ""),
            patient=hashlib.sha256(record["patient_group"].encode()).hexdigest()[:12],
            modality=record["modality"],
            split=record["split"],
            licence=record["licence"],
            may_train=record["licence_grade"] == "A",
            sequence=sequence,
            labels_path=folder / record["seg_path"] if record.get("seg_path") else None,
        )
    except KeyError as missing:
        raise InputError(f"{where} lacks the field {missing}; add it to each record.") from missing
    except (TypeError, AttributeError) as error:
        raise InputError(f"{where} is no record of a scan, or a field of it is no text.") from error
    for field, choices in (("modality", get_args(Modality)), ("split", get_args(Split))):
        if record[field] not in choices:
            raise InputError(f"{where}: {field} must be one of {', '.join(choices)}; got {record[field]!r}.")
    if not scan.path.exists():
        raise InputError(f"{where}: there is no {record['path']} in the folder.")
    return scan
