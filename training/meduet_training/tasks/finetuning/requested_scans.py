"""Scans that a fine-tuning uses: those of one modality, with whole domains as the test split if requested."""

import difflib
from collections.abc import Sequence
from dataclasses import replace

from meduet_training.data.cohort.scan import Scan, Split
from meduet_training.tasks.finetuning.config import FinetuningData
from napari_meduet.errors import InputError


def requested_scans(cohort: Sequence[Scan], data: FinetuningData) -> list[Scan]:
    """Return the scans of a cohort that the configuration uses, in order, with the splits that it assigns.

    Raises:
        InputError: see `requested_splits`.
    """
    splits = requested_splits(cohort, data)
    return [replace(scan, split=split) for scan, split in zip(cohort, splits, strict=True) if split]


def requested_splits(cohort: Sequence[Scan], data: FinetuningData) -> list[Split | None]:
    """Return the split of each scan of a cohort; None if the scan is not used.

    With unseen domains, their scans are the test split and no other scan is, whatever the list says. Training
    uses no patient who has a scan in an unseen domain.

    Raises:
        InputError: an unseen domain has no scan, or no scan is left for the training.
    """
    is_used = [data.modality in (None, scan.modality) for scan in cohort]
    if not data.unseen:
        return [scan.split if used else None for scan, used in zip(cohort, is_used, strict=True)]
    domains = sorted({scan.domain for scan, used in zip(cohort, is_used, strict=True) if used})
    for name in data.unseen:
        if name not in domains:
            close = difflib.get_close_matches(name, domains, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(domains)}."
            raise InputError(f"data.unseen: no scan is of the domain {name}; {hint}")
    test_patients = {scan.patient for scan in cohort if scan.domain in data.unseen}
    splits: list[Split | None] = []
    for scan, used in zip(cohort, is_used, strict=True):
        if used and scan.domain in data.unseen:
            splits.append("test")
        else:
            trains = used and scan.split == "train" and scan.patient not in test_patients
            splits.append("train" if trains else None)
    if "train" not in splits:
        raise InputError(
            f"Without {', '.join(data.unseen)} and its patients no scan is left to learn from; leave another "
            "domain unseen, or give more scans."
        )
    return splits
