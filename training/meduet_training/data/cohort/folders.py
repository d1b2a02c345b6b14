"""Scans in folders: one level of them is the domain, another the patient, and what lies below is theirs."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from meduet_training.data.cohort.candidates import (
    Candidate,
    Origin,
    is_image,
    is_label,
    labels_beside,
    stem_of,
)
from napari_meduet.errors import InputError
from napari_meduet.volumes.dicom_frames import looks_like_dicom
from napari_meduet.volumes.safe_open import open_regular, reason, shown_name

LABEL_FOLDER = re.compile(r"^(labels|masks|segmentations)", re.IGNORECASE)
NO_DICOM = (".json", ".txt", ".csv", ".tsv", ".md", ".xml", ".html", ".pdf", ".png", ".jpg", ".raw", ".zraw")
DOMAIN_LEVEL, PATIENT_LEVEL = Origin("folder", "1"), Origin("folder", "2")


def in_folders(
    root: Path, domain_from: Origin | None = None, patient_from: Origin | None = None
) -> list[Candidate]:
    """All scans below a folder; by default its folders are the domains, and theirs the patients.

    A file that lies in its domain's folder stands for a patient of its own. Patients of one name are taken
    for one, in whatever folder: the splits then part nobody from himself.

    Raises:
        InputError: a domain or a patient cannot be told from where it was to be looked for.
    """
    candidates = []
    for path in scans_below(root):
        patient = _told(root, path, patient_from or PATIENT_LEVEL)
        if patient is None and patient_from is not None:
            raise InputError(
                f"{path.name}: there is no {patient_from.kind}:{patient_from.value} to take from."
            )
        candidates.append(
            Candidate(
                path=path,
                domain=_told(root, path, domain_from or DOMAIN_LEVEL) or root.resolve().name,
                patient=patient or stem_of(path),
                patient_in_header=patient_from is None,
                patient_is_guess=patient is None,
                labels=labels_beside(path) if path.is_file() else None,
            )
        )
    return candidates


def scans_below(folder: Path) -> Iterator[Path]:
    """Image files, and folders of DICOM files with all that is below them; no segmentations."""
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if name[0] != "." and not LABEL_FOLDER.match(name))
        visible = [Path(parent) / name for name in sorted(names) if name[0] != "."]
        images = [path for path in visible if is_image(path.name)]
        yield from (path for path in images if not is_label(path))
        others = (path for path in visible if path not in images and not path.name.lower().endswith(NO_DICOM))
        if any(_is_dicom(path) for path in others):
            yield Path(parent)
            folders.clear()


def _refuse(error: OSError) -> None:
    name = shown_name(error.filename or ".")
    raise InputError(f"{name}: the folder cannot be read ({reason(error)}); allow it, or take it away.")


def _is_dicom(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return looks_like_dicom(file.read(140))
    except InputError:
        return False


def _told(root: Path, path: Path, origin: Origin) -> str | None:
    """What an origin says of a scan; None where its folder lies too high for that.

    A domain that DICOM tags name is told by its folder until they are read.
    """
    if origin.kind == "name":
        found = re.search(origin.value, stem_of(path))
        if found:
            return found.group(1 if found.re.groups else 0)
        raise InputError(f"{path.name}: name:{origin.value} does not match it; give another expression.")
    above = path.relative_to(root).parts
    above = above if path.is_dir() else above[:-1]
    level = int(origin.value) if origin.kind == "folder" else 1
    return above[level - 1] if len(above) >= level else None
