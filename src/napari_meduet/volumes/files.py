"""Read a scan, ask what it is, write a result: what the rest of the project calls.

Each format has its own file; what is said of every scan whatever its format is said here.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast, get_args

import nibabel as nib

from napari_meduet.errors import InputError
from napari_meduet.volumes import checks, dicom_series
from napari_meduet.volumes.dicom_frames import looks_like_dicom
from napari_meduet.volumes.dicom_series import SeriesInfo, read_dicom
from napari_meduet.volumes.metaimage import read_metaimage
from napari_meduet.volumes.nifti import read_nifti
from napari_meduet.volumes.nrrd import read_nrrd
from napari_meduet.volumes.safe_open import PathLike, open_regular, shown_name
from napari_meduet.volumes.scan import Scan
from napari_meduet.volumes.volume import UNITS, Modality, Volume
from napari_meduet.volumes.writing import sidecar_path, write_atomically, write_volume

__all__ = [
    "ScanInfo",
    "SeriesInfo",
    "file_sha256",
    "list_series",
    "read_info",
    "read_volume",
    "sidecar_path",
    "write_atomically",
    "write_volume",
]

DEFAULT_BUDGET_BYTES = 4 * 2**30  # of voxels as stored: 1024 x 1024 x 1024 at 32 bits


@dataclass(frozen=True, kw_only=True)
class ScanInfo:
    """What a scan is, in numbers; `as_json` is the answer of `meduet info --json`."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    affine: tuple[tuple[float, ...], ...]  # voxel index -> RAS mm, four rows
    orientation: str  # the directions in which the voxel axes run, as in "LPS"
    voxel_type: str
    modality: Modality
    unit: str
    min_value: float
    max_value: float
    warnings: tuple[str, ...]
    sha256: str
    synthetic: Mapping[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return asdict(self)


def read_volume(
    path: PathLike | Sequence[PathLike],
    *,
    volume_index: int | None = None,
    series: str | None = None,
    modality: str | None = None,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
) -> Volume:
    """The scan in a NIfTI, NRRD, MHA, MHD or DICOM file, in a DICOM folder or a list of DICOM files.

    Args:
        volume_index: which volume of a 4-D file, from 0.
        series: which series of a DICOM folder: its number in `list_series`, or its UID.
        modality: "CT" or "MR" where the file does not say, or says it wrong.
        budget_bytes: most memory that the stored voxels may take.

    Raises:
        InputError: the file fails a check; the message names the file and the field.
    """
    if modality not in (None, *get_args(Modality)):
        raise InputError(f"The modality {modality!r} is not known; choose CT or MR.")
    scan = _read_scan(path, volume_index, series, cast(Modality | None, modality), budget_bytes)
    name = _name_of(path)
    low, high = checks.value_range(name, scan.voxels, scan.slope, scan.intercept)
    warnings = list(scan.warnings)
    told = _modality(modality, scan)
    if told is None:
        told, guess = checks.guess_modality(scan.voxels, scan.slope, scan.intercept)
        warnings.append(guess)
    warnings += checks.doubtful_values(low, high, told)
    return Volume(
        voxels=scan.voxels,
        affine=scan.affine,
        slope=scan.slope,
        intercept=scan.intercept,
        modality=told,
        unit=UNITS[told],
        warnings=tuple(warnings),
        sha256=scan.sha256,
        header=scan.header,
        synthetic=scan.synthetic,
    )


def _modality(given: str | None, scan: Scan) -> Modality | None:
    """What the user says, else the file's format, else the provenance of a result of ours."""
    provenance = scan.synthetic or {}
    for told in (given, scan.modality, provenance.get("modality")):
        if told in get_args(Modality):
            return cast(Modality, told)
    return None


def read_info(path: PathLike | Sequence[PathLike], **options: Any) -> ScanInfo:
    """What a scan is: it is read and checked as `read_volume` does, with the same options."""
    volume = read_volume(path, **options)
    ends = [
        float(end) * volume.slope + volume.intercept for end in (volume.voxels.min(), volume.voxels.max())
    ]
    return ScanInfo(
        shape=volume.voxels.shape,
        spacing_mm=volume.spacing_mm,
        affine=tuple(tuple(float(number) for number in row) for row in volume.affine),
        orientation="".join(nib.aff2axcodes(volume.affine)),
        voxel_type=volume.voxels.dtype.name,
        modality=volume.modality,
        unit=volume.unit,
        min_value=min(ends),
        max_value=max(ends),
        warnings=volume.warnings,
        sha256=volume.sha256,
        synthetic=volume.synthetic,
    )


def file_sha256(path: PathLike) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_series(folder: PathLike) -> list[SeriesInfo]:
    """The series in a DICOM folder and the folders below it, to choose one by its number."""
    return dicom_series.list_series(Path(os.fsdecode(folder)))


def _read_scan(
    source: PathLike | Sequence[PathLike],
    volume_index: int | None,
    series: str | None,
    modality: Modality | None,
    budget_bytes: int,
) -> Scan:
    """By what the file begins with, not by what its name ends with."""
    name = _name_of(source)
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        paths = [Path(os.fsdecode(path)) for path in source]
    else:
        paths = Path(os.fsdecode(source))
    if isinstance(paths, Path) and not paths.is_dir():
        with open_regular(paths) as file:
            start = file.read(140)
            file.seek(0)
            if not looks_like_dicom(start):
                if series is not None:
                    raise InputError(f"{name}: is not DICOM, so there is no series {series!r} to choose.")
                if start.startswith(b"NRRD"):
                    return read_nrrd(paths, file, volume_index, budget_bytes)
                if paths.suffix.lower() in (".mha", ".mhd"):
                    return read_metaimage(paths, file, volume_index, budget_bytes)
                return read_nifti(file, name, volume_index, budget_bytes)
    if volume_index is not None:
        raise InputError(f"{name}: is DICOM; choose a volume by its series, not by volume_index.")
    return read_dicom(paths, name, series, modality, budget_bytes)


def _name_of(source: PathLike | Sequence[PathLike]) -> str:
    """What messages call it: a list of files goes by its first."""
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        if not source:
            raise InputError("No file was given.")
        return shown_name(source[0])
    return shown_name(source)
