"""Which scans there are: those of a manifest (`meduet-cohort`), of the `index.json` beside volumes, or of a
folder of nnU-Net or the Medical Segmentation Decathlon.

Patients become hashes here and stay hashes everywhere.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, get_args

from meduet_training.data.cohort.community_layouts import DATASET, in_decathlon
from meduet_training.data.cohort.manifest import SUFFIXES, read_manifest
from meduet_training.data.cohort.scan import Scan, Split
from napari_meduet.errors import InputError
from napari_meduet.volumes.volume import Modality

INDEX = "index.json"


def read_cohort(path: Path) -> list[Scan]:
    """The scans that a manifest, or the `index.json` or dataset.json in a folder, lists, in its order.

    Raises:
        InputError: there is none, a record lacks a field or cannot be meant, or a scan is missing.
    """
    if path.is_file() or path.suffix in SUFFIXES:
        return read_manifest(path)
    if (path / DATASET).is_file() and not (path / INDEX).is_file():
        return _of_decathlon(path)
    return [_scan(path, number, record) for number, record in enumerate(index_records(path), start=1)]


def index_records(folder: Path) -> list[Any]:
    """What the `index.json` in a folder lists, as it was written.

    Raises:
        InputError: there is none, or it is no list.
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
    return records


def _of_decathlon(folder: Path) -> list[Scan]:
    """The scans of imagesTr and imagesTs; every case is a patient, every sequence a domain."""
    scans = []
    for candidate in in_decathlon(folder):
        if candidate.modality is None:
            raise InputError(
                f"{folder.name}/{DATASET}: a channel is named after no modality; call it CT, or by the MR "
                "sequence, such as T1."
            )
        scans.append(
            Scan(
                path=candidate.path,
                domain=candidate.domain + (f"-{candidate.sequence}" if candidate.sequence else ""),
                patient=_hashed(candidate.patient),
                modality=candidate.modality,
                split=candidate.split or "train",
                licence=candidate.licence,
                may_train=candidate.may_train,
                sequence=candidate.sequence,
                labels_path=candidate.labels,
                volume_index=candidate.volume_index,
            )
        )
    if not scans:
        raise InputError(f"{folder.name}: holds a {DATASET}, but no images in imagesTr or imagesTs.")
    return scans


def _hashed(patient: str) -> str:
    return hashlib.sha256(patient.encode()).hexdigest()[:12]


def trainable(scans: list[Scan]) -> list[Scan]:
    """The scans a shipped model may learn from: the train split, without non-commercial licences.

    Raises:
        InputError: there is none.
    """
    chosen = [scan for scan in scans if scan.split == "train" and scan.may_train]
    if not chosen:
        raise InputError(
            f"None of the {len(scans)} scans may be trained on: the list needs scans of split 'train' whose "
            f"licence allows it ({INDEX}: licence_grade 'A'; a manifest: may_train)."
        )
    return chosen


def _scan(folder: Path, number: int, record: Any) -> Scan:
    where = f"{folder.name}/{INDEX}: record {number}"
    try:
        sequence = record["sequence"] if record["modality"] == "MR" else None
        scan = Scan(
            path=folder / record["path"],
            domain=record["domain"] + (f"-{sequence}" if sequence else ""),
            patient=_hashed(record["patient_group"]),
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
