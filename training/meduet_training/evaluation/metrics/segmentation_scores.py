"""Dice and NSD of structures, for each structure and over all structures, with intervals over patients.

A structure is scored in a scan only if the labels of the scan name it and hold it.
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
    """Score of one method for one structure of one test scan.

    Attributes:
        scan: number of the scan, from 1; a file name could identify the patient.
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
        assert self.overlap.dice is not None, "only structures in the truth have scores"
        return self.overlap.dice


class StructureMeasurement(NamedTuple):
    """Overlap and surface agreement of one structure; no surface where the truth does not hold it."""

    overlap: Overlap
    surface: SurfaceAgreement | None


def measure_structures(
    predicted: np.ndarray,
    truth: np.ndarray,
    evaluated: Sequence[bool],
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float,
) -> dict[int, StructureMeasurement]:
    """Measure each evaluated class, by class number.

    Args:
        predicted, truth: class numbers (X, Y, Z) on the grid of the scan. Voxels where the truth is `IGNORED`
            are left out.
        evaluated: whether each class is evaluated, the background first.
    """
    predicted = np.where(truth == IGNORED, IGNORED, predicted)
    measured = {}
    for number, (one, other) in enumerate(class_masks(predicted, truth, len(evaluated)), start=1):
        if evaluated[number]:
            surface = surface_agreement(one, other, spacing_mm, tolerance_mm) if other.any() else None
            measured[number] = StructureMeasurement(overlap=overlap(one, other, spacing_mm), surface=surface)
    return measured


def mean_over_structures(
    values: Sequence[float], structures: Sequence[str], patients: Sequence[str], seed: int
) -> Estimate:
    """Return the mean over structures of their means over scans; all structures have the same weight.

    A bootstrap draw of patients averages over the structures that these patients hold.
    """
    numbers, names = np.asarray(values, np.float64), np.asarray(structures)

    def mean(rows: np.ndarray) -> float:
        return float(np.mean([numbers[rows][names[rows] == name].mean() for name in np.unique(names[rows])]))

    return estimate(mean, patients, seed)


def paired_difference(
    ours: Sequence[Score], others: Sequence[Score], metric: Callable[[Score], float], seed: int
) -> Estimate | None:
    """Return the mean difference of two methods over their common structures; None if there are none."""
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
