"""Read a scan, ask what it is, write a result: what the rest of the project calls.

Each format has its own file; what is said of every scan whatever its format is said here.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import nibabel as nib

from napari_meduet.errors import InputError
from napari_meduet.volumes import checks
from napari_meduet.volumes.nifti import read_nifti
from napari_meduet.volumes.opening import PathLike, open_regular, reason, shown_name
from napari_meduet.volumes.scan import Scan
from napari_meduet.volumes.volume import UNITS, Modality, Volume
from napari_meduet.volumes.writing import sidecar_path, write_atomically, write_volume

__all__ = [
    "ScanInfo", "file_sha256", "read_info", "read_volume", "sidecar_path",
    "write_atomically", "write_volume",
]  # fmt: skip

DEFAULT_BUDGET_BYTES = 4 * 2**30  # of voxels as stored: 1024 x 1024 x 1024 at 32 bits


@dataclass(frozen=True, kw_only=True)
class ScanInfo:
    """What a scan is, in numbers; `as_json` is the answer of `meduet info --json`."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    affine: tuple[tuple[float, float, float, float], ...]  # voxel index -> RAS mm, four rows
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
    if modality is not None and modality not in get_args(Modality):
        raise InputError(f"The modality {modality!r} is not known; choose CT or MR.")
    scan = _read_scan(path, volume_index, series, budget_bytes)
    name = shown_name(path)
    low, high = checks.value_range(name, scan.voxels, scan.slope, scan.intercept)
    warnings = list(scan.warnings)
    told = modality or scan.modality or (scan.synthetic or {}).get("modality")
    if told not in get_args(Modality):
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


def _read_scan(path, volume_index: int | None, series: str | None, budget_bytes: int) -> Scan:
    name = shown_name(path)
    with open_regular(path) as file:
        return read_nifti(file, name, volume_index, budget_bytes)
