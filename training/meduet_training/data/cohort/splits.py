"""Train and test split: by patient, so that nobody is in both, and alike in every domain."""

import hashlib
from collections.abc import Sequence

from meduet_training.data.cohort.scan import Split


def in_two_splits(patients: Sequence[str], given: Sequence[Split | None]) -> set[str]:
    """The patients that were given to both splits."""
    seen: dict[str, set[Split]] = {}
    for patient, split in zip(patients, given, strict=True):
        if split is not None:
            seen.setdefault(patient, set()).add(split)
    return {patient for patient, splits in seen.items() if len(splits) > 1}


def assign_splits(
    patients: Sequence[str],
    domains: Sequence[str],
    given: Sequence[Split | None],
    *,
    test_share: float,
    seed: int,
) -> list[Split]:
    """A split for each scan. A split that was given holds for all scans of its patient.

    Domain by domain, from the one with the fewest patients, patients go to the test split until it has its
    share of them (rounded; a domain of one patient is for training). Whoever is in several domains counts in
    each.

    Args:
        given: of each scan, where somebody decided before; nobody may be in two.
        test_share: of each domain's patients, 0 to 1.
    """
    decided: dict[str, Split] = {
        patient: split for patient, split in zip(patients, given, strict=True) if split is not None
    }
    members: dict[str, set[str]] = {}
    for patient, domain in zip(patients, domains, strict=True):
        members.setdefault(domain, set()).add(patient)
    for domain in sorted(members, key=lambda name: (len(members[name]), name)):
        wanted = round(test_share * len(members[domain])) if len(members[domain]) > 1 else 0
        wanted -= sum(decided.get(patient) == "test" for patient in members[domain])
        free = sorted(
            (patient for patient in members[domain] if patient not in decided),
            key=lambda name: _draw(seed, name),
        )
        for place, patient in enumerate(free):
            decided[patient] = "test" if place < wanted else "train"
    return [decided[patient] for patient in patients]


def _draw(seed: int, patient: str) -> str:
    """A patient's place in the draw: it stays when others come or go."""
    return hashlib.sha256(f"{seed} {patient}".encode()).hexdigest()
