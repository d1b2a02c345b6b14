"""Which scans there are: one record each, with the domain it stands for and the patient it must not leave.

This reads the `index.json` beside a set of volumes. Patients become hashes here and stay hashes everywhere.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from napari_meduet.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One scan of a cohort."""

    path: Path
    domain: str  # site or scanner; for MR with the sequence, since sequences of one site look less alike than sites
    patient: str  # a hash: scans of one patient share it
    modality: str  # "CT" or "MR"
    split: str  # "train" or "test"
    licence: str
    may_train: bool  # the licence allows that a model trained on the scan is shipped
    sequence: str | None = None
    labels_path: Path | None = None


def read_cohort(folder: Path) -> list[Scan]:
    """The scans that `index.json` in a folder lists, in its order.

    Raises:
        InputError: there is no index, or a record lacks a field.
    """
    index = folder / "index.json"
    if not index.is_file():
        raise InputError(
            f"{folder.name} holds no index.json, the list of its scans; give the folder that has one."
        )
    records = json.loads(index.read_text())
    try:
        return [_scan(folder, record) for record in records]
    except KeyError as missing:
        raise InputError(
            f"A record of index.json lacks the field {missing}; add it to each record."
        ) from missing


def trainable(scans: list[Scan]) -> list[Scan]:
    """The scans a shipped model may learn from: the train split, without non-commercial licences."""
    return [scan for scan in scans if scan.split == "train" and scan.may_train]


def _scan(folder: Path, record: dict) -> Scan:
    sequence = record["sequence"] if record["modality"] == "MR" else None
    return Scan(
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
