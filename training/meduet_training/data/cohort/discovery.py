"""Which scans there are, whatever the layout: folders, BIDS, nnU-Net, a CSV file, or an index.json."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import polars as pl

from meduet_training.data.cohort.candidates import Candidate, Kind, Origin, allows_training
from meduet_training.data.cohort.community_layouts import DATASET, in_bids, in_decathlon
from meduet_training.data.cohort.folders import in_folders
from meduet_training.data.cohort.layout import Layout
from meduet_training.data.cohort.scan import Split
from meduet_training.data.cohort.scans import INDEX, index_records
from napari_meduet.errors import InputError
from napari_meduet.volumes.volume import Modality

DOMAIN_KINDS: dict[Layout, tuple[Kind, ...]] = {  # where a domain may come from
    Layout.folders: ("folder", "name", "dicom"),
    Layout.bids: ("column", "dicom"),
    Layout.nnunet: ("dicom",),
    Layout.csv: ("column", "dicom"),
    Layout.index_json: ("column", "dicom"),
}
PATIENT_KINDS: dict[Layout, tuple[Kind, ...]] = {  # and a patient, where the layout does not name him
    Layout.folders: ("folder", "name"),
    Layout.bids: (),
    Layout.nnunet: (),
    Layout.csv: ("column",),
    Layout.index_json: ("column",),
}
INDEX_NAMES = {"patient": "patient_group", "labels": "seg_path"}  # ours -> the index's


def find_candidates(
    source: Path, layout: Layout, domain_from: Origin | None, patient_from: Origin | None
) -> list[Candidate]:
    """All scans that a folder, or a CSV file, is said to hold; with `auto` by what lies in it.

    A folder of folders may hold datasets of several layouts.

    Raises:
        InputError: nothing is there, or a table in it cannot be meant.
    """
    if not source.exists():
        raise InputError(f"{source.name}: there is no such folder; give the folder that holds the scans.")
    if layout is not Layout.auto:
        found = _in_layout(source, layout, domain_from, patient_from)
    elif (told := _layout_of(source)) is not Layout.folders:
        found = _in_layout(source, told, domain_from, patient_from)
    else:
        found = _in_folder_of_folders(source, domain_from, patient_from)
    if not found:
        raise InputError(
            f"{source.name}: no scans were found in it (layout {layout}); NIfTI, NRRD, MetaImage and DICOM "
            "are read."
        )
    return found


def _in_folder_of_folders(
    source: Path, domain_from: Origin | None, patient_from: Origin | None
) -> list[Candidate]:
    """What is said of domain and patient holds for those layouts in which it can be looked up."""
    inner = {folder: _layout_of(folder) for folder in sorted(source.iterdir()) if folder.is_dir()}
    known = {folder: told for folder, told in inner.items() if told is not Layout.folders}
    if not known:
        return _in_layout(source, Layout.folders, domain_from, patient_from)

    def fitting(told: Layout) -> tuple[Origin | None, Origin | None]:
        return (
            domain_from if domain_from and domain_from.kind in DOMAIN_KINDS[told] else None,
            patient_from if patient_from and patient_from.kind in PATIENT_KINDS[told] else None,
        )

    found = [
        candidate
        for candidate in _in_layout(source, Layout.folders, *fitting(Layout.folders))
        if not any(candidate.path.is_relative_to(folder) for folder in known)
    ]
    for folder, told in known.items():
        found += [
            replace(candidate, patient=f"{folder.name}/{candidate.patient}")
            for candidate in _in_layout(folder, told, *fitting(told))
        ]
    return found


def _layout_of(source: Path) -> Layout:
    if source.is_file():
        return Layout.csv
    if (source / INDEX).is_file():
        return Layout.index_json
    if (source / DATASET).is_file() and (source / "imagesTr").is_dir():
        return Layout.nnunet
    if (source / "dataset_description.json").is_file():
        return Layout.bids
    return Layout.folders


def _in_layout(
    source: Path, layout: Layout, domain_from: Origin | None, patient_from: Origin | None
) -> list[Candidate]:
    for origin, kinds in ((domain_from, DOMAIN_KINDS[layout]), (patient_from, PATIENT_KINDS[layout])):
        if origin and origin.kind not in kinds:
            raise InputError(
                f"{origin.kind}:{origin.value} cannot be looked up in the layout {layout}; there "
                f"{' or '.join(kinds) or 'nothing'} can."
            )
    if layout is Layout.csv:
        return _in_table(source.parent, source.name, _csv_records(source), {}, domain_from, patient_from)
    if not source.is_dir():
        raise InputError(f"{source.name}: is no folder; layout {layout} needs one.")
    if layout is Layout.index_json:
        return _in_table(source, INDEX, index_records(source), INDEX_NAMES, domain_from, patient_from)
    if layout is Layout.bids:
        return in_bids(source, domain_from)
    if layout is Layout.nnunet:
        return in_decathlon(source)
    return in_folders(source, domain_from, patient_from)


def _csv_records(path: Path) -> list[dict[str, Any]]:
    try:
        return pl.read_csv(path, infer_schema=False).to_dicts()
    except (OSError, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path.name}: is no CSV file that can be read ({reason}).") from error


def _in_table(
    folder: Path,
    name: str,
    records: list[Any],
    names: Mapping[str, str],
    domain_from: Origin | None,
    patient_from: Origin | None,
) -> list[Candidate]:
    """A candidate for each record; paths are relative to the folder."""
    fields = {
        "domain": domain_from.value if domain_from and domain_from.kind == "column" else "domain",
        "patient": patient_from.value if patient_from and patient_from.kind == "column" else None,
    }
    fields["patient"] = fields["patient"] or names.get("patient", "patient")
    needed = ["path", fields["patient"]]
    if not (domain_from and domain_from.kind == "dicom"):
        needed.append(fields["domain"])
    candidates = []
    for number, record in enumerate(records, start=1):
        where = f"{name}: record {number}"
        if not isinstance(record, dict):
            raise InputError(f"{where} is no record of a scan.")
        for field in needed:
            if not isinstance(record.get(field), str) or not record[field]:
                raise InputError(f"{where} has no {field}; every scan needs one.")
        for field, choices in (("modality", get_args(Modality)), ("split", get_args(Split))):
            if record.get(field) not in (None, "", *choices):
                raise InputError(
                    f"{where}: {field} must be one of {', '.join(choices)}; got {record[field]!r}."
                )
        licence = str(record.get("licence") or "")
        labels = record.get(names.get("labels", "labels"))
        grade = record.get("licence_grade")
        candidates.append(
            Candidate(
                path=folder / record["path"],
                domain=record.get(fields["domain"]) or "",
                patient=record[fields["patient"]],
                modality=record.get("modality") or None,
                sequence=record.get("sequence") or None,
                split=record.get("split") or None,
                licence=licence,
                may_train=grade == "A" if grade else allows_training(licence),
                labels=folder / labels if labels else None,
            )
        )
    return candidates
