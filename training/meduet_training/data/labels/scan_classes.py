"""The class of each scan that a classifier learns (specification, section 10).

It stands in a column of the manifest or a field of the `index.json`, whatever its name, or is what every list
says of a scan: its domain, modality or sequence. Which patients watch over the learning is decided here too:
some of each class, none of whom is learnt from.
"""

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meduet_training.data.cohort.manifest import SUFFIXES, read_rows
from meduet_training.data.cohort.scan import Scan
from meduet_training.data.cohort.scans import index_records
from napari_meduet.errors import InputError

OF_EVERY_LIST = ("domain", "modality", "sequence")
WATCHING_SHARE = 0.2  # of the patients of each class, at least one


@dataclass(frozen=True, kw_only=True)
class ClassifiedScan:
    """A scan whose class is known."""

    scan: Scan
    name: str  # of its class


def classified_scans(
    scans: Path, cohort: Sequence[Scan], target: str, classes: Sequence[str] = ()
) -> list[ClassifiedScan]:
    """The scans of a cohort that have a class, in its order; where nothing is said, a scan has none.

    Args:
        scans: the list that the cohort was read from, whole.
        target: the column.
        classes: these alone; none: all that there are.

    Raises:
        InputError: there is no such column, or no scan is of one of the classes.
    """
    said = [getattr(scan, target) for scan in cohort] if target in OF_EVERY_LIST else _column(scans, target)
    assert len(said) == len(cohort), "both were read from one list"
    named = [(scan, str(value)) for scan, value in zip(cohort, said, strict=True) if _says_something(value)]
    known = sorted({name for _, name in named})
    for name in classes:
        if name not in known:
            there_are = f"there are {', '.join(known)}."
            raise InputError(
                f"data.classes: no scan's {target} is {name}; {_meant(name, known) or there_are}"
            )
    return [ClassifiedScan(scan=scan, name=name) for scan, name in named if not classes or name in classes]


def class_names(scans: Sequence[ClassifiedScan], target: str) -> tuple[str, ...]:
    """The classes of scans that are to be learnt from, sorted.

    Raises:
        InputError: there are fewer than two, or one has too few patients.
    """
    patients: dict[str, set[str]] = {}
    for each in scans:
        patients.setdefault(each.name, set()).add(each.scan.patient)
    if len(patients) < 2:
        found = f"one class alone, {next(iter(patients))}" if patients else "no class"
        raise InputError(
            f"The scans to train on have {found} as their {target}; a classifier tells two or more apart."
        )
    for name in sorted(patients):
        if len(patients[name]) < 2:
            raise InputError(
                f"The class {name} has one patient to train on; it takes two, one to learn from and one to "
                "watch over the learning. Add scans, or name the other classes in data.classes."
            )
    return tuple(sorted(patients))


def watching_patients(scans: Sequence[ClassifiedScan], seed: int) -> set[str]:
    """A fifth of the patients of each class, at least one, by a draw that stays when others come or go.

    Each class keeps a patient to learn from. A patient with scans of several classes counts in each.

    Raises:
        InputError: the patients cannot be shared out so.
    """
    members: dict[str, set[str]] = {}
    for each in scans:
        members.setdefault(each.name, set()).add(each.scan.patient)
    watching: set[str] = set()
    for name in sorted(members, key=lambda name: (len(members[name]), name)):
        wanted = max(1, round(WATCHING_SHARE * len(members[name])))
        for patient in sorted(members[name] - watching, key=lambda patient: _draw(seed, patient)):
            if len(members[name] & watching) >= wanted:
                break
            if all(others - watching != {patient} for others in members.values()):
                watching.add(patient)
        if not members[name] & watching:
            raise InputError(
                f"No patient of the class {name} can watch over the learning without another class losing "
                "the only one it learns from; add patients, or name fewer classes in data.classes."
            )
    return watching


def _column(scans: Path, target: str) -> list[Any]:
    """What the list says of each scan that is used."""
    if scans.is_file() or scans.suffix in SUFFIXES:
        rows, name = [row for row in read_rows(scans) if not row["left_out"]], scans.name
    else:
        rows, name = index_records(scans), scans.name
    known = list(dict.fromkeys(column for row in rows for column in row))
    if target not in known:
        there_are = f"it has {', '.join(known)}."
        raise InputError(f"{name} has no column {target}; {_meant(target, known) or there_are}")
    return [row.get(target) for row in rows]


def _says_something(value: Any) -> bool:
    return isinstance(value, str | int | float | bool) and str(value).strip() != ""


def _meant(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else ""


def _draw(seed: int, patient: str) -> str:
    return hashlib.sha256(f"{seed} {patient}".encode()).hexdigest()
