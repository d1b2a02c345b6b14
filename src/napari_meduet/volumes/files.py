"""Read a scan, write a scan: the functions the rest of the project calls."""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import isal_zlib

from napari_meduet.errors import InputError
from napari_meduet.volumes.volume import UNITS, Volume

DEFAULT_BUDGET_BYTES = 4 * 2**30


@dataclass(frozen=True, kw_only=True)
class ScanInfo:
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    affine: tuple[tuple[float, ...], ...]
    orientation: str
    voxel_type: str
    modality: str
    unit: str
    min_value: float
    max_value: float
    warnings: tuple[str, ...]
    sha256: str
    synthetic: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class SeriesInfo:
    number: int
    modality: str
    num_slices: int
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    problems: tuple[str, ...]


def read_volume(
    path, *, volume_index=None, series=None, modality=None, budget_bytes=DEFAULT_BUDGET_BYTES
) -> Volume:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path.name}: there is no such file.")
    try:
        image = nib.load(path)
        voxels = np.asanyarray(image.dataobj.get_unscaled())
    except Exception as error:
        raise InputError(f"{path.name}: not a readable NIfTI file ({error}).") from error
    if voxels.ndim == 4 and (voxels.shape[3] == 1 or volume_index is not None):
        voxels = voxels[..., volume_index or 0]
    if voxels.ndim != 3:
        raise InputError(f"{path.name}: shape {voxels.shape}; choose a volume with volume_index.")
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    guessed = modality or ("CT" if voxels.min() * slope + intercept <= -200 else "MR")
    warnings = () if modality else (f"The modality was guessed from the values: {guessed}.",)
    synthetic = None
    for extension in image.header.extensions:
        if extension.get_code() == 6:
            try:
                content = json.loads(extension.get_content())
                synthetic = content if isinstance(content, dict) and "synthetic" in content else None
            except ValueError:
                pass
    return Volume(
        voxels=voxels, affine=image.affine, slope=float(slope), intercept=float(intercept), modality=guessed,
        unit=UNITS[guessed], warnings=warnings, sha256=file_sha256(path), header=image.header, synthetic=synthetic,
    )


def read_info(path, **options) -> ScanInfo:
    volume = read_volume(path, **options)
    ends = sorted(float(v) * volume.slope + volume.intercept for v in (volume.voxels.min(), volume.voxels.max()))
    return ScanInfo(
        shape=volume.voxels.shape, spacing_mm=volume.spacing_mm,
        affine=tuple(tuple(map(float, row)) for row in volume.affine),
        orientation="".join(nib.aff2axcodes(volume.affine)), voxel_type=str(volume.voxels.dtype),
        modality=volume.modality, unit=volume.unit, min_value=ends[0], max_value=ends[1],
        warnings=volume.warnings, sha256=volume.sha256, synthetic=volume.synthetic,
    )


def list_series(folder) -> list[SeriesInfo]:
    raise InputError("DICOM reading follows in a later commit.")


def file_sha256(path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def write_atomically(path, overwrite: bool = False) -> Iterator[Path]:
    path = Path(path)
    if path.exists() and not overwrite:
        raise InputError(f"{path.name} exists already; choose another name or allow overwriting.")
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path.name} could not be written: {error.strerror}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_volume(path, volume: Volume, *, provenance: Mapping[str, Any], overwrite: bool = False) -> None:
    path = Path(path)
    header = volume.header.copy() if volume.header is not None else nib.Nifti1Header()
    header.set_data_dtype(volume.voxels.dtype)
    header.extensions.clear()
    compact = json.dumps(provenance, separators=(",", ":")).encode()
    header.extensions.append(nib.nifti1.Nifti1Extension(6, compact))
    image = nib.Nifti1Image(volume.voxels, volume.affine, header)
    image.header.set_slope_inter(volume.slope, volume.intercept)
    data = image.to_bytes()
    if path.name.endswith(".gz"):
        data = isal_zlib.compress(data, 1, wbits=31)
    sidecar = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    with write_atomically(sidecar, overwrite) as text, write_atomically(path, overwrite) as binary:
        binary.write_bytes(data)
        text.write_text(json.dumps(provenance, indent=2))
