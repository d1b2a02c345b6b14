"""One scan of a cohort: where it is, what it stands for, and the patient it must not leave."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.volume import Modality, Volume

Split = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One scan of a cohort."""

    path: Path  # a file, or the folder of a DICOM series
    domain: str  # site or scanner; for MR with the sequence: those of one site look less alike than sites do
    patient: str  # a hash: scans of one patient share it
    modality: Modality
    split: Split
    licence: str  # empty where nobody said
    may_train: bool  # the licence allows that a model trained on the scan is shipped
    sequence: str | None = None
    labels_path: Path | None = None
    series: str | None = None  # its number in `list_series`, where a DICOM folder holds several
    volume_index: int | None = None  # where a file holds several, from 0
    sha256: str | None = None  # of the file when the manifest was made, as `Volume.sha256`


def read_scan(scan: Scan) -> Volume:
    """The scan's voxels, read and checked.

    Raises:
        InputError: the file fails a check.
    """
    return read_volume(scan.path, modality=scan.modality, series=scan.series, volume_index=scan.volume_index)


def scan_words(scan: Scan) -> str:
    """What tells a scan from others, whatever folder it lies in: what is made of it is named by that."""
    elsewhere = ("path", "labels_path")  # a folder that moved holds the same scans
    words = {name: str(value) for name, value in asdict(scan).items() if name not in elsewhere}
    return f"{scan.path.name} {scan.path.stat().st_size} {sorted(words.items())}"
