"""Which scans of a list a fine-tuning is given: those of a modality, and tests of sites that it never saw."""

import difflib
from collections.abc import Sequence
from dataclasses import replace

from meduet_training.data.cohort.scan import Scan, Split
from meduet_training.tasks.finetuning.config import FinetuningData
from napari_meduet.errors import InputError


def requested_scans(cohort: Sequence[Scan], data: FinetuningData) -> list[Scan]:
    """The scans of a cohort that the configuration asks for, in its order, in the splits that it means.

    Raises:
        InputError: as `requested_splits`.
    """
    splits = requested_splits(cohort, data)
    return [replace(scan, split=split) for scan, split in zip(cohort, splits, strict=True) if split]


def requested_splits(cohort: Sequence[Scan], data: FinetuningData) -> list[Split | None]:
    """The split of each scan of a cohort, None where it is left out.

    Where domains are unseen, their scans are the test split, whatever the list says, no other scan is, and
    whoever has a scan there is not learnt from elsewhere.

    Raises:
        InputError: no scan is of an unseen domain, or nobody is left to learn from.
    """
    is_asked = [data.modality in (None, scan.modality) for scan in cohort]
    if not data.unseen:
        return [scan.split if asked else None for scan, asked in zip(cohort, is_asked, strict=True)]
    domains = sorted({scan.domain for scan, asked in zip(cohort, is_asked, strict=True) if asked})
    for name in data.unseen:
        if name not in domains:
            close = difflib.get_close_matches(name, domains, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(domains)}."
            raise InputError(f"data.unseen: no scan is of the domain {name}; {hint}")
    met = {scan.patient for scan in cohort if scan.domain in data.unseen}
    splits: list[Split | None] = []
    for scan, asked in zip(cohort, is_asked, strict=True):
        if asked and scan.domain in data.unseen:
            splits.append("test")
        else:
            splits.append("train" if asked and scan.split == "train" and scan.patient not in met else None)
    if "train" not in splits:
        raise InputError(
            f"Without {', '.join(data.unseen)} and its patients no scan is left to learn from; leave another "
            "domain unseen, or give more scans."
        )
    return splits
