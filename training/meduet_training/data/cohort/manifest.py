"""A cohort's manifest: one table, CSV or Parquet, with a row for each scan. `meduet-cohort` writes it.

Rows that were left out stay in the table with the reason; they are not handed on. Paths are relative to the
manifest where that is possible, so that both move together. What is read back is checked before any work
starts: a person may have edited the table.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import polars as pl

from meduet_training.data.cohort.scan import Scan, Split
from napari_meduet.errors import InputError
from napari_meduet.volumes.files import write_atomically
from napari_meduet.volumes.volume import Modality

SUFFIXES = (".csv", ".parquet")
COLUMNS: dict[str, Any] = {
    "path": pl.String,  # relative to the manifest where possible
    "series": pl.String,  # its number, where a DICOM folder holds several
    "volume": pl.Int64,  # its number from 0, where a file holds several
    "patient": pl.String,  # a salted hash, unless ids were to be kept
    "domain": pl.String,
    "modality": pl.String,
    "sequence": pl.String,
    "split": pl.String,
    "spacing_mm": pl.String,  # along the file's own axes, as in "0.977 0.977 3"
    "shape": pl.String,  # voxels along the same axes
    "labels": pl.String,  # path of the segmentation
    "licence": pl.String,
    "may_train": pl.Boolean,  # the licence allows that a model trained on the scan is shipped
    "clipped": pl.Float64,  # share of the body beyond the intensity profile or saturated in the file
    "sha256": pl.String,  # of the file
    "volume_hash": pl.String,  # of what it shows: copies in other formats and orientations are near
    "series_hash": pl.String,  # salted, of the SeriesInstanceUID
    "left_out": pl.String,  # the reason; empty where the scan is used
    "doubts": pl.String,  # what is worth a look, though the scan is used
}
REQUIRED = ("path", "patient", "domain", "modality", "split")


def read_manifest(path: Path) -> list[Scan]:
    """The scans of a manifest that were not left out, in its order.

    Raises:
        InputError: it is no manifest, a column or a value is missing or unknown, no scan is left, or scans or
            labels are not where it says.
    """
    table = _read_table(path)
    missing = [name for name in REQUIRED if name not in table.columns]
    if missing:
        raise InputError(
            f"{path.name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; write it with "
            "meduet-cohort scan, or name the columns so."
        )
    rows = [(number, row) for number, row in enumerate(table.iter_rows(named=True), start=1)]
    scans = [_scan(path, number, row) for number, row in rows if not row.get("left_out")]
    if not scans:
        raise InputError(f"{path.name} lists no scan that is used; all {len(rows)} rows are left out.")
    _refuse_absent(path, [scan.path for scan in scans], "scans")
    _refuse_absent(path, [scan.labels_path for scan in scans if scan.labels_path], "label files")
    return scans


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Every row of a manifest, with those left out; a column that is not there is None.

    Raises:
        InputError: it is no manifest.
    """
    return [dict.fromkeys(COLUMNS) | row for row in _read_table(path).iter_rows(named=True)]


def write_manifest(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table, whole or not at all; an older one is replaced.

    Raises:
        InputError: the name ends with neither .csv nor .parquet, or the file cannot be written.
    """
    check_name(path)
    table = pl.DataFrame([dict.fromkeys(COLUMNS) | dict(row) for row in rows], schema=COLUMNS)
    with write_atomically(path, overwrite=True) as temporary:
        if path.suffix == ".parquet":
            table.write_parquet(temporary)
        else:
            table.write_csv(temporary)


def check_name(path: Path) -> None:
    """Raises InputError unless the name says which kind of table it is."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path.name}: a manifest's name ends with {' or '.join(SUFFIXES)}.")


def _read_table(path: Path) -> pl.DataFrame:
    check_name(path)
    if not path.is_file():
        raise InputError(f"{path.name}: there is no such manifest; write it with meduet-cohort scan.")
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        return pl.read_csv(path, schema_overrides=_as_written(path))
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path.name} is no table that can be read ({reason}); write it again.") from error


def _as_written(path: Path) -> dict[str, Any]:
    """The types of our columns; patients 007 and 7 are two, whatever a guess would make of them."""
    header = pl.read_csv(path, n_rows=0, infer_schema=False).columns
    return {name: COLUMNS.get(name, pl.String) for name in header}


def _scan(manifest: Path, number: int, row: Mapping[str, Any]) -> Scan:
    where = f"{manifest.name}: row {number}"
    for field in REQUIRED:
        if not row[field] or not isinstance(row[field], str):
            raise InputError(f"{where} has no {field}, as text; every scan that is used needs one.")
    for field, choices in (("modality", get_args(Modality)), ("split", get_args(Split))):
        if row[field] not in choices:
            raise InputError(f"{where}: {field} must be one of {', '.join(choices)}; got {row[field]!r}.")
    may_train = row.get("may_train")
    return Scan(
        path=manifest.parent / row["path"],
        domain=row["domain"],
        patient=row["patient"],
        modality=row["modality"],
        split=row["split"],
        licence=row.get("licence") or "",
        may_train=True if may_train is None else bool(may_train),
        sequence=row.get("sequence"),
        labels_path=manifest.parent / row["labels"] if row.get("labels") else None,
        series=row.get("series"),
        volume_index=row.get("volume"),
        sha256=row.get("sha256"),
    )


def _refuse_absent(manifest: Path, paths: Sequence[Path], what: str) -> None:
    absent = [path for path in paths if not path.exists()]
    if absent:
        raise InputError(
            f"{manifest.name}: {len(absent)} of its {len(paths)} {what} are not there, first "
            f"{absent[0].name}; put them back, or run meduet-cohort scan again."
        )
