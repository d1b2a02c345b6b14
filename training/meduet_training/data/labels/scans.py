"""Scans with labels, the names of the labels, and sequences that a segmenter reads together (M-06).

A segmenter reads one scan, or for MR k sequences of one patient on one grid, that have one label file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from meduet_training.data.cohort.scan import Scan
from meduet_training.data.labels.names import Names, label_names
from napari_meduet.errors import InputError
from napari_meduet.volumes.files import read_volume


@dataclass(frozen=True, kw_only=True)
class LabelledScan:
    """What a segmenter reads at once, and its labels.

    Attributes:
        channels: one scan, or one of each sequence.
        names: of the labels in the file, from 1 up.
    """

    channels: tuple[Scan, ...]
    labels_path: Path
    names: Names

    @property
    def first(self) -> Scan:
        """Stands for all of them: they are of one patient, one split and one modality."""
        return self.channels[0]


def labelled_scans(
    scans: Path, cohort: Sequence[Scan], names: Path | None = None, sequences: Sequence[str] = ()
) -> list[LabelledScan]:
    """The scans of a cohort that have labels, in its order.

    Labels that nobody names are called "label 7".

    Args:
        scans: the list that the cohort was read from.
        names: a file that names the labels (`label_names`).
        sequences: are seen together, in this order; none: each scan is alone. Patients that lack one are left
            out.

    Raises:
        InputError: a label file is not there, or a patient has a sequence twice.
    """
    together = [(scan,) for scan in cohort] if not sequences else _by_sequences(cohort, sequences)
    labelled = [
        (channels, path)
        for channels in together
        if (path := next((scan.labels_path for scan in channels if scan.labels_path), None)) is not None
    ]
    absent = [path.name for _, path in labelled if not path.is_file()]
    if absent:
        raise InputError(
            f"{absent[0]}: there is no such file of labels, but the list names it"
            + (f", and {len(absent) - 1} others." if len(absent) > 1 else ".")
        )
    named = label_names(scans, cohort, names)
    return [
        LabelledScan(channels=channels, labels_path=path, names=named[path] or _numbers_as_names(path))
        for channels, path in labelled
    ]


def _by_sequences(cohort: Sequence[Scan], sequences: Sequence[str]) -> list[tuple[Scan, ...]]:
    """The scans of each patient that has all of the sequences."""
    by_patient: dict[str, dict[str, Scan]] = {}
    for scan in cohort:
        if scan.sequence is None or scan.sequence not in sequences:
            continue
        own = by_patient.setdefault(scan.patient, {})
        if own.setdefault(scan.sequence, scan) is not scan:
            raise InputError(
                f"data.sequences: a patient has {scan.sequence} more than once, so it is not known which "
                "scans belong together; leave one of them out of the list."
            )
    return [
        tuple(own[name] for name in sequences) for own in by_patient.values() if len(own) == len(sequences)
    ]


def check_labelled(
    labelled: Sequence[LabelledScan], cohort: Sequence[Scan], sequences: Sequence[str]
) -> None:
    """Refuse a cohort without labels.

    Raises:
        InputError: with what the list needs.
    """
    if labelled:
        return
    if sequences:
        known = sorted({scan.sequence for scan in cohort if scan.sequence})
        raise InputError(
            f"data.sequences: no patient has labels and all of {', '.join(sequences)}; the list knows "
            f"{', '.join(known) or 'no sequences'}."
        )
    raise InputError(
        f"None of the {len(cohort)} scans to train on has labels: the list needs seg_path (index.json), "
        "labels (a manifest) or a folder labelsTr (nnU-Net)."
    )


def _numbers_as_names(path: Path) -> Names:
    """The labels in a file that nobody names."""
    numbers = np.unique(read_volume(path, modality="MR").values())  # integers without a unit
    return {int(number): f"label {int(number)}" for number in numbers if number > 0}
