"""How well structures were found, structure by structure and over all, with intervals over patients.

Of a scan only those structures are judged that somebody looked for in it, and only where it holds them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from meduet_training.evaluation.metrics.estimates import Estimate, estimate
from meduet_training.evaluation.metrics.overlap import Overlap, class_masks, overlap
from meduet_training.evaluation.metrics.surface_distance import SurfaceAgreement, surface_agreement
from napari_meduet.core.analysis.finetuning import IGNORED

METRICS: dict[str, Callable[["Score"], float]] = {
    "Dice": lambda score: score.dice,
    "NSD": lambda score: score.surface.nsd,
}


@dataclass(frozen=True, kw_only=True)
class Score:
    """One structure that a test scan holds, as one method found it.

    Attributes:
        scan: its number, from 1; its name might name the patient.
    """

    method: str
    structure: str
    scan: int
    domain: str
    patient: str
    overlap: Overlap
    surface: SurfaceAgreement

    @property
    def dice(self) -> float:
        assert self.overlap.dice is not None, "only structures that the truth holds have scores"
        return self.overlap.dice


class Measured(NamedTuple):
    """One structure of one scan; without surfaces where the truth does not hold it."""

    overlap: Overlap
    surface: SurfaceAgreement | None


def measured_structures(
    found: np.ndarray,
    truth: np.ndarray,
    judged: Sequence[bool],
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float,
) -> dict[int, Measured]:
    """Each class that is judged, by its number.

    Args:
        found, truth: class numbers (X, Y, Z) on the scan's own grid; where the truth is `IGNORED`, nothing
            is judged.
        judged: of each class, the background first.
    """
    found = np.where(truth == IGNORED, IGNORED, found)
    measured = {}
    for number, (one, other) in enumerate(class_masks(found, truth, len(judged)), start=1):
        if judged[number]:
            surface = surface_agreement(one, other, spacing_mm, tolerance_mm) if other.any() else None
            measured[number] = Measured(overlap=overlap(one, other, spacing_mm), surface=surface)
    return measured


def mean_over_structures(
    values: Sequence[float], structures: Sequence[str], patients: Sequence[str], seed: int
) -> Estimate:
    """The mean over structures of their means over scans, each structure counting alike.

    A draw of patients counts the structures that these hold.
    """
    numbers, names = np.asarray(values, np.float64), np.asarray(structures)

    def mean(rows: np.ndarray) -> float:
        return float(np.mean([numbers[rows][names[rows] == name].mean() for name in np.unique(names[rows])]))

    return estimate(mean, patients, seed)


def paired_difference(
    ours: Sequence[Score], others: Sequence[Score], metric: Callable[[Score], float], seed: int
) -> Estimate | None:
    """By how much ours are better over the structures of scans that both know; None where there are none."""
    theirs = {(score.scan, score.structure): score for score in others}
    pairs = [
        (score, theirs[score.scan, score.structure])
        for score in ours
        if (score.scan, score.structure) in theirs
    ]
    if not pairs:
        return None
    return mean_over_structures(
        [metric(own) - metric(other) for own, other in pairs],
        [own.structure for own, _ in pairs],
        [own.patient for own, _ in pairs],
        seed,
    )
