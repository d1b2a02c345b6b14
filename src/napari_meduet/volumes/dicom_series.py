"""DICOM slices put together: which belong to one volume, in what order, on what grid.

A volume is the slices of one series with one orientation and one size, evenly spaced and each there once. Two
phases or echoes in one series become two entries of the list. Everything else is refused with what is wrong.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

import numpy as np
from numpy.typing import NDArray

from napari_meduet.errors import InputError
from napari_meduet.volumes import checks
from napari_meduet.volumes.dicom_frames import (
    PHASE_FIELDS,
    Frame,
    frames_in,
    looks_like_dicom,
    read_bytes,
)
from napari_meduet.volumes.dicom_pixels import stored_frames
from napari_meduet.volumes.safe_open import open_regular, shown_name
from napari_meduet.volumes.scan import Scan
from napari_meduet.volumes.volume import Modality

MAX_FILES = 20_000
STEP_TOLERANCE = 0.01
ROUNDING_MM = 0.01  # positions are written as decimal text
SAME_DIRECTION = 1e-3
SAME_PLACE_MM = 1e-3

FIELDS_IN_COMMON = (
    ("PixelSpacing (0028,0030)", lambda frame: frame.spacing_mm),
    ("ImageOrientationPatient (0020,0037)", lambda frame: frame.orientation),
    ("ImagePositionPatient (0020,0032)", lambda frame: frame.position),
)


@dataclass(frozen=True, kw_only=True)
class SeriesInfo:
    """One line of the list of series, to choose from. No field names a patient."""

    number: int  # in the list, from 1: what `series=` takes
    modality: str
    description: str  # as typed at the scanner: for the screen, not for a log
    phase: str  # what tells it from the other volumes of its series, as in "EchoTime 4.6"
    num_slices: int
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Folder:
    """The series found, and what was left out."""

    series: list[list[Frame]]
    warnings: list[str]


def list_series(folder: Path) -> list[SeriesInfo]:
    """The series in a DICOM folder, whether or not they can be loaded."""
    return series_infos(volumes_in(folder))


def volumes_in(folder: Path) -> list[list[Frame]]:
    """The frames of each series of `list_series`, in its order. Pixels are not read."""
    return _found(_files_below(folder)).series


def read_dicom(
    paths: Path | Sequence[Path], name: str, series: str | None, modality: Modality | None, budget_bytes: int
) -> Scan:
    """The chosen series of a folder or of a list of files; the only one if none is chosen.

    Args:
        modality: what the user says it is; else the file's word counts.
    """
    if isinstance(paths, Path) and not paths.is_dir():
        paths = [paths]
    if isinstance(paths, Path):
        found = _found(_files_below(paths))
    else:
        found = Folder(_grouped([frame for path in paths for frame in frames_in(path)]), [])
    if not found.series:
        raise InputError(f"{name}: holds no DICOM images." + "".join(f" {text}" for text in found.warnings))
    frames = _chosen(found.series, name, series)
    if modality is not None:
        frames = [replace(frame, modality=modality) for frame in frames]
    return _load(frames, name, found.warnings, budget_bytes)


def _files_below(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{shown_name(folder)}: is not a folder.")
    files = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        files += [Path(parent) / name for name in sorted(names) if name != "DICOMDIR" and name[0] != "."]
        if len(files) > MAX_FILES:
            raise InputError(
                f"{shown_name(folder)}: holds more than {MAX_FILES:,} files; choose a folder below it."
            )
    return files


def _found(files: list[Path]) -> Folder:
    frames: list[Frame] = []
    others, damaged = [], []
    for path in files:
        try:
            with open_regular(path) as file:
                is_dicom = looks_like_dicom(file.read(140))
            if is_dicom:
                frames += frames_in(path)
            else:
                others.append(shown_name(path))
        except InputError as error:
            damaged.append(str(error))
    warnings = []
    if others:
        warnings.append(f"Left out, not DICOM: {_some(others)}.")
    if damaged:
        warnings.append(f"Left out, not readable: {_some(damaged)}.")
    return Folder(_grouped(frames), warnings)


def _some(texts: list[str]) -> str:
    """The first three, and how many more."""
    more = [f"and {len(texts) - 3} more"] if len(texts) > 3 else []
    return "; ".join([text.rstrip(".") for text in texts[:3]] + more)


def _grouped(frames: list[Frame]) -> list[list[Frame]]:
    """By series, orientation and size; then by phase where slices share a position."""
    groups: dict[tuple, list[list[Frame]]] = {}
    for frame in frames:
        pixels = frame.pixels
        key = (frame.series_uid, frame.series_number, frame.modality, pixels.rows, pixels.columns)
        alike = groups.setdefault(key, [])
        group = next((group for group in alike if _same_plane(frame, group[0])), None)
        if group is None:
            alike.append([frame])
        else:
            group.append(frame)
    volumes = [volume for alike in groups.values() for group in alike for volume in _phases(group)]
    return sorted(
        volumes, key=lambda volume: (volume[0].series_number, volume[0].series_uid, volume[0].phase)
    )


def _same_plane(frame: Frame, other: Frame) -> bool:
    if frame.orientation is None or other.orientation is None:
        return frame.orientation == other.orientation
    return bool(np.allclose(frame.orientation, other.orientation, atol=SAME_DIRECTION))


def _phases(group: list[Frame]) -> list[list[Frame]]:
    """Split a group by the first field that leaves every position once and every phase equally long."""
    if len(_places(group)) == len(group):
        return [group]
    for field in PHASE_FIELDS:
        parts: dict[str, list[Frame]] = {}
        for frame in group:
            parts.setdefault(dict(frame.phase).get(field, ""), []).append(frame)
        lengths = {len(part) for part in parts.values()}
        each_once = all(len(part) == len(_places(part)) > 1 for part in parts.values())
        if len(parts) > 1 and len(lengths) == 1 and each_once:
            return list(parts.values())
    return [group]


def _places(frames: list[Frame]) -> set[tuple[float, ...] | int]:
    """The distinct positions; a frame without one counts for itself."""
    return {
        tuple(np.round(np.array(frame.position) / SAME_PLACE_MM)) if frame.position is not None else k
        for k, frame in enumerate(frames)
    }


def series_infos(volumes: list[list[Frame]]) -> list[SeriesInfo]:
    """A line for each of the volumes."""
    return [_info(number, volume, volumes) for number, volume in enumerate(volumes, start=1)]


def _info(number: int, frames: list[Frame], volumes: list[list[Frame]]) -> SeriesInfo:
    first = frames[0]
    problems, spacing = [], None
    try:
        _check_kind(frames, first.name)
        _, affine = _ordered(frames, first.name)
        x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
        spacing = (float(x), float(y), float(z))
    except InputError as error:
        problems.append(str(error))
    return SeriesInfo(
        number=number,
        modality=first.modality,
        description=first.description,
        phase=_phase_name(first, [volume[0] for volume in volumes]),
        num_slices=len(frames),
        shape=(first.pixels.columns, first.pixels.rows, len(frames)),
        spacing_mm=spacing,
        problems=tuple(problems),
    )


def _phase_name(first: Frame, others: list[Frame]) -> str:
    siblings = [dict(other.phase) for other in others if other.series_uid == first.series_uid]
    for field, value in first.phase:
        if len({sibling.get(field) for sibling in siblings}) == len(siblings) > 1:
            return f"{field} {value}"
    return ""


def _chosen(volumes: list[list[Frame]], name: str, series: str | None) -> list[Frame]:
    if series is None:
        candidates = [volume for volume in volumes if not volume[0].is_localizer] or volumes
        if len(candidates) == 1:
            return candidates[0]
    else:
        for number, volume in enumerate(volumes, start=1):
            if series == str(number):
                return volume
        named = [volume for volume in volumes if series == volume[0].series_uid]
        if len(named) == 1:
            return named[0]
    lines = []
    for info in series_infos(volumes):
        size = f"{info.num_slices} slices of {info.shape[0]} x {info.shape[1]}"
        spacing = f"{checks.triple(np.array(info.spacing_mm))} mm" if info.spacing_mm else "not loadable"
        lines.append(", ".join(filter(None, (f"{info.number}: {info.modality}", size, spacing, info.phase))))
    asked = f"there is no series {series!r}; it" if series is not None else "it"
    raise InputError(
        f"{name}: {asked} holds {len(volumes)} series; choose one by its number ({'; '.join(lines)})."
    )


def _load(frames: list[Frame], name: str, warnings: list[str], budget_bytes: int) -> Scan:
    _check_kind(frames, name)
    frames, affine = _ordered(frames, name)
    first = frames[0]
    shape = (first.pixels.columns, first.pixels.rows, len(frames))
    warnings = warnings + [text for frame in frames for text in frame.warnings]
    warnings += checks.check_affine(name, "PixelSpacing and ImagePositionPatient", affine, shape)
    rescales = {(frame.slope, frame.intercept) for frame in frames}
    dtype = first.pixels.dtype if len(rescales) == 1 else np.dtype(np.float32)
    checks.check_memory(name, shape, dtype.itemsize, budget_bytes)

    voxels = checks.allocate(name, shape, dtype)
    digests = {}
    for path in dict.fromkeys(frame.path for frame in frames):
        data = read_bytes(path, budget_bytes)
        digests[path] = hashlib.sha256(data).digest()
        here = [k for k, frame in enumerate(frames) if frame.path == path]
        slices = stored_frames(
            data, frames[here[0]].pixels, [frames[k].index for k in here], shown_name(path)
        )
        for k, stored in zip(here, slices, strict=True):
            if len(rescales) > 1:
                stored = stored * np.float32(frames[k].slope or 1) + np.float32(frames[k].intercept or 0)
            voxels[:, :, k] = stored.T
    slope, intercept = (first.slope, first.intercept) if len(rescales) == 1 else (1.0, 0.0)
    if first.modality == "CT" and None in (slope, intercept):
        warnings.append(_missing_rescale(voxels, name))
    return Scan(
        voxels=voxels,
        affine=affine,
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        warnings=list(dict.fromkeys(warnings)),
        sha256=hashlib.sha256(b"".join(digests.values())).hexdigest(),
        modality=cast(Modality, first.modality),
    )


def _missing_rescale(voxels: NDArray, name: str) -> str:
    if voxels.min() >= 0:
        raise InputError(
            f"{name}: RescaleSlope (0028,1053) or RescaleIntercept (0028,1052) is missing and no value is "
            "below 0, so the numbers are not Hounsfield units; export the series again."
        )
    return (
        "RescaleSlope (0028,1053) or RescaleIntercept (0028,1052) is missing; the stored numbers are taken "
        "for Hounsfield units."
    )


def _check_kind(frames: list[Frame], name: str) -> None:
    first = frames[0]
    if first.modality not in get_args(Modality):
        raise InputError(
            f"{name}: Modality (0008,0060) is {first.modality or 'missing'}; CT and MR are read."
        )
    if len(frames) < 2:
        raise InputError(
            f"{name}: is a single slice; a scan needs all slices of its series: choose the folder that "
            "holds them."
        )
    for field, value_of in FIELDS_IN_COMMON:
        values = {value_of(frame) for frame in frames}
        if None in values:
            missing = next(frame for frame in frames if value_of(frame) is None)
            raise InputError(f"{missing.name}: {field} is missing; the slice has no size or place.")
        if field.startswith("PixelSpacing") and len({tuple(np.round(value, 4)) for value in values}) > 1:
            raise InputError(f"{name}: {field} differs between slices of one series; they are no volume.")
    if len({frame.pixels.dtype for frame in frames}) > 1:
        raise InputError(
            f"{name}: BitsAllocated or PixelRepresentation differs between slices of one series."
        )
    if (
        first.modality == "CT"
        and len({frame.slope is None or frame.intercept is None for frame in frames}) > 1
    ):
        raise InputError(
            f"{name}: RescaleSlope or RescaleIntercept is missing from some slices of the series."
        )


def _ordered(frames: list[Frame], name: str) -> tuple[list[Frame], NDArray[np.float64]]:
    """The slices from one end to the other, and their affine (voxel index -> RAS mm)."""
    orientation = np.array(frames[0].orientation).reshape(2, 3)
    if not np.allclose(orientation @ orientation.T, np.eye(2), atol=0.01):
        raise InputError(
            f"{name}: ImageOrientationPatient (0020,0037) is not two perpendicular directions: "
            f"{frames[0].orientation}."
        )
    normal = np.cross(orientation[0], orientation[1])
    positions = np.array([frame.position for frame in frames])
    order = np.argsort(positions @ normal, kind="stable")
    frames, positions = [frames[k] for k in order], positions[order]
    _check_steps(positions, normal, frames, name)

    between_rows, between_columns = frames[0].spacing_mm or (0, 0)
    affine = np.eye(4)
    affine[:3, 0] = orientation[0] * between_columns  # to the next column, along a row
    affine[:3, 1] = orientation[1] * between_rows
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(frames) - 1)
    affine[:3, 3] = positions[0]
    return frames, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS -> RAS


def _check_steps(positions: NDArray, normal: NDArray, frames: list[Frame], name: str) -> None:
    steps = np.diff(positions @ normal)
    typical = float(np.median(steps))
    twice = np.flatnonzero(steps < SAME_PLACE_MM)
    if twice.size:
        a, b = frames[twice[0]], frames[twice[0] + 1]
        differing = [field for field, value in a.phase if dict(b.phase).get(field) != value]
        raise InputError(
            f"{name}: {twice.size} of its slices lie at the same ImagePositionPatient (0020,0032) as "
            f"another, first {a.name} and {b.name}; the series holds duplicates or several phases"
            + (f" (they differ in {', '.join(differing)})." if differing else ".")
        )
    tolerance = max(STEP_TOLERANCE * typical, ROUNDING_MM)
    uneven = np.flatnonzero(np.abs(steps - typical) > tolerance)
    if uneven.size:
        k = int(uneven[np.argmax(steps[uneven])])
        missing = round(steps[k] / typical) - 1
        what = (
            f"{missing} slice{'s are' * (missing > 1)}{' is' * (missing == 1)} missing between"
            if missing >= 1 and abs(steps[k] - (missing + 1) * typical) <= tolerance * (missing + 1)
            else "the slices are unevenly spaced at"
        )
        raise InputError(
            f"{name}: ImagePositionPatient (0020,0032) steps by {typical:.4g} mm, but by {steps[k]:.4g} mm "
            f"from {frames[k].name} to {frames[k + 1].name}: {what} these two."
        )
    line = positions[0] + np.outer(np.arange(len(frames)) / (len(frames) - 1), positions[-1] - positions[0])
    aside = float(np.linalg.norm(positions - line, axis=1).max())
    if aside > max(tolerance, 0.1 * typical):
        raise InputError(
            f"{name}: ImagePositionPatient (0020,0032) leaves a straight line by {aside:.2g} mm; the slices "
            "are no regular volume."
        )
