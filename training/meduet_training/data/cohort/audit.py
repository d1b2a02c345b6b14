"""Each scan of a cohort opened and measured: can it be read, how large is it, how much of it is clipped?

An audit knows one path and says what it found there, in JSON's types; what follows from it for the cohort is
decided elsewhere. It runs in processes of its own and never lets a name, an id or a UID out unhashed.
"""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from meduet_training.data.cohort.candidates import Candidate
from meduet_training.data.cohort.fingerprint import volume_hash
from meduet_training.data.cohort.pseudonyms import Pseudonyms
from meduet_training.data.cohort.scanner_tags import sidecar_of, tags_of_dicom, tags_of_sidecar
from napari_meduet.errors import InputError
from napari_meduet.volumes.dicom_frames import Frame
from napari_meduet.volumes.dicom_series import series_infos, volumes_in
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.intensity import body_mask, clipped_fraction, fit_mr_profile, profile_named
from napari_meduet.volumes.preparation import WorkingGrid
from napari_meduet.volumes.safe_open import shown_name
from napari_meduet.volumes.volume import Modality, Volume

FEW_VALUES = 12  # an image has more; what has fewer is a segmentation
SAMPLED = 4  # every so many voxels tell that
ALIKE = 0.6  # of neighbours in a segmentation have one value, and fewer in an image, even of 8 bits
PATIENT_TAGS = ("PatientID", "PatientName")
SERIES_UID = "SeriesInstanceUID"
EVERY = 2  # voxels of 1.5 mm: enough to tell a share of the body, at an eighth of the time
UID_ROOTS = ("1.2.", "1.3.", "2.16.", "2.25.")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a scan turned out to be; of one that cannot be used, `problem` says why, and the rest may lack."""

    problem: str | None = None
    series: str | None = None  # its number, where a DICOM folder holds several
    names_patient: bool = False  # the folder that names its domain is named for the patient
    patient: str | None = None  # under the name that goes into the manifest; None: the header does not tell
    modality: Modality | None = None
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    working_shape: tuple[int, int, int] | None = None  # on the working grid of 1.5 mm
    clipped: float | None = None  # share of the body beyond the profile, or saturated in the file
    tags: dict[str, str] | None = None  # of the scanner, where the domain comes from them
    sha256: str | None = None
    volume_hash: str | None = None
    series_hash: str | None = None
    doubts: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Found":
        """The record that `as_json` gave."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """How scans are looked at.

    Attributes:
        profile: the CT profile whose clipping is told; MR has its own (M-03).
        tags: DICOM keywords that the domain comes from.
    """

    pseudonyms: Pseudonyms
    profile: str
    tags: tuple[str, ...]

    def __call__(self, candidate: Candidate) -> list[Found]:
        """What lies at its path: one scan, or each series of a DICOM folder. Never raises for a bad file."""
        path = candidate.path
        if not path.is_dir():
            return [_guarded(path, lambda: self._file(candidate))]
        try:
            volumes = volumes_in(path)
        except InputError as error:
            return [Found(problem=str(error))]
        if not volumes:
            return [Found(problem=f"{shown_name(path)}: holds no DICOM image that can be read.")]
        infos = series_infos(volumes)
        return [
            _guarded(
                path,
                lambda frames=frames, info=info: self._series(
                    candidate, frames, info.phase, str(info.number) if len(volumes) > 1 else None
                ),
            )
            for frames, info in zip(volumes, infos, strict=True)
        ]

    def _file(self, candidate: Candidate) -> Found:
        path = candidate.path
        volume = read_volume(path, volume_index=candidate.volume_index, modality=candidate.modality)
        sidecar = sidecar_of(path)
        uid = str(sidecar.get(SERIES_UID) or "") or _uid_in_name(path)
        return self._measured(volume, uid, "", None, tags_of_sidecar(sidecar, self.tags), None)

    def _series(self, candidate: Candidate, frames: list[Frame], phase: str, series: str | None) -> Found:
        path, first = candidate.path, frames[0]
        if first.is_localizer:
            return Found(problem=f"{shown_name(path)}: is a localizer.", series=series)
        tags = tags_of_dicom(first.path, (*PATIENT_TAGS, *self.tags))
        persons = [tags.pop(keyword, "") for keyword in PATIENT_TAGS]
        patient = persons[0] if candidate.patient_in_header else None
        volume = read_volume(path, series=series, modality=candidate.modality)
        found = self._measured(volume, first.series_uid, phase, series, tags, patient)
        return replace(found, names_patient=not self.tags and _names_one_of(candidate.domain, persons))

    def _measured(
        self,
        volume: Volume,
        uid: str,
        phase: str,
        series: str | None,
        tags: dict[str, str],
        patient: str | None,
    ) -> Found:
        if problem := _looks_like_labels(volume.voxels):
            return Found(problem=problem, series=series, sha256=volume.sha256)
        native = volume.values()
        grid = WorkingGrid.for_volume(volume)
        is_ct = volume.modality == "CT"
        profile = profile_named(self.profile) if is_ct else fit_mr_profile(native)
        values = grid.to_working(native)
        coarse = values[::EVERY, ::EVERY, ::EVERY]
        body = body_mask(coarse, volume.modality)
        clipped = clipped_fraction(profile, coarse, body)
        return Found(
            series=series,
            patient=self.pseudonyms.patient(patient) if patient else None,
            modality=volume.modality,
            shape=volume.voxels.shape,
            spacing_mm=volume.spacing_mm,
            working_shape=cast(tuple[int, int, int], grid.shape),
            clipped=max(clipped, _saturated(coarse[body], volume.modality)),
            tags={keyword: tags[keyword] for keyword in self.tags if keyword in tags},
            sha256=volume.sha256,
            volume_hash=volume_hash(profile.encode(values)),
            series_hash=self.pseudonyms.series(f"{uid} {phase}") if uid else None,
            doubts=volume.warnings,
        )


def _names_one_of(domain: str, persons: list[str]) -> bool:
    """Whether a domain's name holds an id, or a part of a name, as a word."""
    words = [word for person in persons for word in re.split(r"[\^\s]+", person) if len(word) > 2]
    return any(re.search(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", domain, re.IGNORECASE) for word in words)


def _guarded(path: Path, look: Callable[[], Found]) -> Found:
    """What is found, or why nothing can be."""
    try:
        return look()
    except InputError as error:
        return Found(problem=str(error))
    except MemoryError:
        return Found(problem=f"{shown_name(path)}: does not fit into the memory of this machine.")
    except Exception as error:  # a scan that breaks us must not end the audit of the others
        return Found(problem=f"{shown_name(path)}: could not be audited ({type(error).__name__}).")


def _saturated(tissue: np.ndarray, modality: Modality) -> float:
    """Share of the body at the very end of the scan's values: cut off before it came here.

    The lower end counts in CT alone; in MR it is the dark of air and cortical bone.
    """
    if tissue.size == 0:
        return 0.0
    ends = [tissue.max()] + ([tissue.min()] if modality == "CT" else [])
    return max(float(np.count_nonzero(tissue == end) / tissue.size) for end in ends)


def _looks_like_labels(voxels: np.ndarray) -> str | None:
    """Why a file seems to be a segmentation: few values, or regions of one value as no scanner sees them."""
    num_values = len(np.unique(voxels[::SAMPLED, ::SAMPLED, ::SAMPLED]))
    between = (voxels > voxels.min()) & (voxels < voxels.max())  # the ends may be cut off in an image too
    alike = np.count_nonzero((voxels[1:] == voxels[:-1]) & between[1:]) / max(1, np.count_nonzero(between))
    if num_values >= FEW_VALUES and alike < ALIKE:
        return None
    return f"Holds regions of one value ({num_values} values): a segmentation, it seems, and no scan."


def _uid_in_name(path: Path) -> str:
    """The UID that a file is named by, as LUNA16's are."""
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    parts = stem.split(".")
    is_uid = stem.startswith(UID_ROOTS) and len(parts) > 5 and all(part.isdecimal() for part in parts)
    return stem if is_uid else ""
