"""Which scans of a list a fine-tuning is given: those of a modality, and tests of sites that it never saw."""

import difflib
from collections.abc import Sequence
from dataclasses import replace

from meduet_training.data.scan import Scan
from meduet_training.finetuning_config import FinetuningData
from napari_meduet.errors import InputError


def asked_scans(cohort: Sequence[Scan], data: FinetuningData) -> list[Scan]:
    """The scans of a cohort that the configuration asks for, in its order.

    Where domains are unseen, their scans are the test split, whatever the list says, no other scan is, and
    whoever has a scan there is not learnt from elsewhere.

    Raises:
        InputError: no scan is of an unseen domain, or nobody is left to learn from.
    """
    scans = [scan for scan in cohort if data.modality in (None, scan.modality)]
    if not data.unseen:
        return scans
    domains = sorted({scan.domain for scan in scans})
    for name in data.unseen:
        if name not in domains:
            close = difflib.get_close_matches(name, domains, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(domains)}."
            raise InputError(f"data.unseen: no scan is of the domain {name}; {hint}")
    tests = [replace(scan, split="test") for scan in scans if scan.domain in data.unseen]
    met = {scan.patient for scan in tests}
    learned = [scan for scan in scans if scan.split == "train" and scan.patient not in met]
    if not learned:
        raise InputError(
            f"Without {', '.join(data.unseen)} and its patients no scan is left to learn from; leave another "
            "domain unseen, or give more scans."
        )
    return learned + tests
