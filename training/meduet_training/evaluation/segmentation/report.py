"""Scores of structures as figures, tables and data; who was asked, and about what, is not its business."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from meduet_training.evaluation.metrics.estimates import Estimate, mean_estimate
from meduet_training.evaluation.metrics.segmentation_scores import (
    METRICS,
    Score,
    mean_over_structures,
    paired_difference,
)
from meduet_training.evaluation.sections import Figure, Part, Table

HOW = (
    "Dice, and the share of both surfaces within {tolerance:g} mm of the other (NSD), on each scan's own "
    "grid. Only structures that a scan's truth names and holds are judged in it; each structure counts alike "
    "in a mean. Intervals draw patients: with few of them they say little, and for one there is none."
)

Estimates = dict[str, dict[str, dict[str, Estimate]]]  # by structure, method and metric


@dataclass(frozen=True, kw_only=True)
class Setting:
    """All that a figure must not be quoted without.

    Attributes:
        methods: their names, the one that is judged first, and where they come from.
        not_covered: structures in the truth that are no class's.
        not_judged: classes that no test scan holds.
        found_where_absent_ml: of structures that somebody looked for in vain: method, structure, scan and
            what was found.
    """

    methods: Mapping[str, Mapping[str, str | int]]
    tolerance_mm: float
    seed: int
    num_scans: int
    num_patients: int
    not_covered: Sequence[str]
    not_judged: Sequence[str]
    found_where_absent_ml: Sequence[tuple[str, str, int, float]]


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentationEvaluation:
    """What was found."""

    part: Part
    setting: Setting
    estimates: Estimates

    def as_data(self) -> dict[str, Any]:
        """JSON types, single scans included."""
        structures = {
            structure: {
                method: {metric: asdict(found) for metric, found in metrics.items()}
                for method, metrics in methods.items()
            }
            for structure, methods in self.estimates.items()
        }
        return self.as_figures() | {
            "structures": structures,
            "tables": [asdict(table) for table in self.part.tables],
        }

    def as_figures(self) -> dict[str, Any]:
        """For the model card: without the single scans."""
        return asdict(self.setting) | self.part.as_data()

    def as_markdown(self) -> str:
        return self.part.as_markdown()


def reported(scores: Sequence[Score], structures: Sequence[str], setting: Setting) -> SegmentationEvaluation:
    """Means, differences and tables of all scores.

    Args:
        structures: in the order of the tables.
    """
    by_method = {name: [score for score in scores if score.method == name] for name in setting.methods}
    estimates = _estimates(by_method, structures, setting.seed)
    part = Part(
        title="Segmentation of test scans",
        how=_words(setting),
        figures=(*_means(by_method, setting.seed), *_differences(by_method, setting.seed)),
        tables=(
            _structures(estimates, [name for name in by_method if by_method[name]]),
            _single_scans(scores),
        ),
        seed=setting.seed,
    )
    return SegmentationEvaluation(part=part, setting=setting, estimates=estimates)


def _words(setting: Setting) -> str:
    words = [HOW.format(tolerance=setting.tolerance_mm)]
    for name, origin in setting.methods.items():
        if origin:
            told = ", ".join(f"{key} {str(value)[:16]}" for key, value in origin.items())
            words.append(f"{name}: {told}.".replace("_", " "))
    if setting.not_covered:
        words.append(f"In the truth, but no class of the segmenter: {', '.join(setting.not_covered)}.")
    if setting.not_judged:
        words.append(f"In no truth, and not judged: {', '.join(setting.not_judged)}.")
    for name in setting.methods:
        found = [found_ml for method, _, _, found_ml in setting.found_where_absent_ml if method == name]
        if any(found):
            words.append(
                f"{name} found structures that are not there in {np.count_nonzero(found)} of {len(found)} "
                f"cases, {max(found):.1f} mL at most."
            )
    return " ".join(words)


def _estimates(by_method: Mapping[str, Sequence[Score]], structures: Sequence[str], seed: int) -> Estimates:
    found: Estimates = {}
    for structure in structures:
        for method, scores in by_method.items():
            own = [score for score in scores if score.structure == structure]
            if own:
                patients = [score.patient for score in own]
                found.setdefault(structure, {})[method] = {
                    metric: mean_estimate([of(score) for score in own], patients, seed)
                    for metric, of in METRICS.items()
                }
    return found


def _means(by_method: Mapping[str, Sequence[Score]], seed: int) -> list[Figure]:
    """Over the structures that each method knows."""
    return [
        Figure(
            what=f"{method}: {metric}",
            estimate=mean_over_structures(
                [of(score) for score in scores],
                [score.structure for score in scores],
                [score.patient for score in scores],
                seed,
            ),
            beside=f"mean of {', '.join(sorted({score.structure for score in scores}))}",
        )
        for metric, of in METRICS.items()
        for method, scores in by_method.items()
        if scores
    ]


def _differences(by_method: Mapping[str, Sequence[Score]], seed: int) -> list[Figure]:
    """Between the first method and each other, over what both know."""
    first, *others = by_method
    return [
        Figure(
            what=f"{first} minus {other}: {metric}",
            estimate=found,
            beside="paired, over the structures that both know",
        )
        for other in others
        for metric, of in METRICS.items()
        if (found := paired_difference(by_method[first], by_method[other], of, seed)) is not None
    ]


def _structures(estimates: Estimates, methods: Sequence[str]) -> Table:
    rows: list[list[str | None]] = []
    for structure, found in estimates.items():
        counted = next(iter(found.values()))["Dice"]
        cells = [_cell(found[method][metric]) if method in found else None
                 for method in methods for metric in METRICS]  # fmt: skip
        rows.append([structure, f"{counted.num_samples} / {counted.num_patients}", *cells])
    columns = [f"{method} {metric}" for method in methods for metric in METRICS]
    return Table(title="Structures", columns=("structure", "scans / patients", *columns), rows=rows)


def _cell(found: Estimate) -> str:
    if found.num_patients < 2:  # nothing to draw from
        return f"{found.value:.3f}"
    return f"{found.value:.3f} ({found.low:.3f} – {found.high:.3f})"


def _single_scans(scores: Sequence[Score]) -> Table:
    rows = [
        (
            str(score.scan),
            score.domain,
            score.structure,
            score.method,
            score.dice,
            score.surface.nsd,
            score.surface.hd95_mm,
            score.overlap.truth_ml,
            score.overlap.found_ml,
        )
        for score in sorted(scores, key=lambda score: (score.scan, score.structure))
    ]
    columns = ("scan", "domain", "structure", "method", "Dice", "NSD", "HD95 mm", "true mL", "found mL")
    return Table(title="Single scans", columns=columns, rows=rows)
