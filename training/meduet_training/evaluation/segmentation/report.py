"""Scores of structures as metrics, tables and JSON data.

evaluate.py beside this file computes the scores; metrics/segmentation_scores.py defines them.
"""

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
from meduet_training.evaluation.sections import EvaluationSection, Metric, Table

DESCRIPTION = (
    "Dice, and the fraction of both surfaces within {tolerance:g} mm of the other surface (NSD), on the "
    "grid of each scan. A structure is scored in a scan if the labels of the scan name it and hold it. All "
    "structures have the same weight in a mean. Intervals are over patients: they are unreliable for few "
    "patients, and there is none for one patient."
)

Estimates = dict[str, dict[str, dict[str, Estimate]]]  # by structure, method and metric


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Settings that describe the metrics.

    Attributes:
        methods: origin of each method, by name; the evaluated model is the first.
        not_covered: structures of the truth that are not a class of the segmenter.
        not_evaluated: classes that no test scan holds.
        false_positives_ml: method, structure, scan and predicted volume of structures that the labels name
            but do not hold.
    """

    methods: Mapping[str, Mapping[str, str | int]]
    tolerance_mm: float
    seed: int
    num_scans: int
    num_patients: int
    not_covered: Sequence[str]
    not_evaluated: Sequence[str]
    false_positives_ml: Sequence[tuple[str, str, int, float]]


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentationEvaluation:
    """Metrics of a segmenter."""

    section: EvaluationSection
    settings: EvaluationSettings
    estimates: Estimates

    def as_data(self) -> dict[str, Any]:
        """Return everything as JSON types, with the tables of single scans."""
        structures = {
            structure: {
                method: {metric: asdict(estimate) for metric, estimate in metrics.items()}
                for method, metrics in methods.items()
            }
            for structure, methods in self.estimates.items()
        }
        return self.as_card_data() | {
            "structures": structures,
            "tables": [asdict(table) for table in self.section.tables],
        }

    def as_card_data(self) -> dict[str, Any]:
        """Return the metrics for the model card, without single scans."""
        return asdict(self.settings) | self.section.as_data()

    def as_markdown(self) -> str:
        """Return metrics and tables as Markdown."""
        return self.section.as_markdown()


def summarise(
    scores: Sequence[Score], structures: Sequence[str], settings: EvaluationSettings
) -> SegmentationEvaluation:
    """Compute the means, differences and tables of all scores.

    Args:
        structures: names of the structures, in the order of the tables.
    """
    by_method = {name: [score for score in scores if score.method == name] for name in settings.methods}
    estimates = _estimates(by_method, structures, settings.seed)
    section = EvaluationSection(
        title="Segmentation of test scans",
        description=_description(settings),
        metrics=(*_means(by_method, settings.seed), *_differences(by_method, settings.seed)),
        tables=(
            _structures(estimates, [name for name in by_method if by_method[name]]),
            _single_scans(scores),
        ),
        seed=settings.seed,
    )
    return SegmentationEvaluation(section=section, settings=settings, estimates=estimates)


def _description(settings: EvaluationSettings) -> str:
    sentences = [DESCRIPTION.format(tolerance=settings.tolerance_mm)]
    for name, origin in settings.methods.items():
        if origin:
            details = ", ".join(f"{key} {str(value)[:16]}" for key, value in origin.items())
            sentences.append(f"{name}: {details}.".replace("_", " "))
    if settings.not_covered:
        sentences.append(
            f"In the truth, but not a class of the segmenter: {', '.join(settings.not_covered)}."
        )
    if settings.not_evaluated:
        sentences.append(f"In no truth, and not evaluated: {', '.join(settings.not_evaluated)}.")
    for name in settings.methods:
        volumes_ml = [
            predicted_ml for method, _, _, predicted_ml in settings.false_positives_ml if method == name
        ]
        if any(volumes_ml):
            sentences.append(
                f"{name} predicted absent structures in {np.count_nonzero(volumes_ml)} of "
                f"{len(volumes_ml)} cases, at most {max(volumes_ml):.1f} mL."
            )
    return " ".join(sentences)


def _estimates(by_method: Mapping[str, Sequence[Score]], structures: Sequence[str], seed: int) -> Estimates:
    estimates: Estimates = {}
    for structure in structures:
        for method, scores in by_method.items():
            own = [score for score in scores if score.structure == structure]
            if own:
                patients = [score.patient for score in own]
                estimates.setdefault(structure, {})[method] = {
                    metric: mean_estimate([of(score) for score in own], patients, seed)
                    for metric, of in METRICS.items()
                }
    return estimates


def _means(by_method: Mapping[str, Sequence[Score]], seed: int) -> list[Metric]:
    """Return the means over the structures that each method knows."""
    return [
        Metric(
            name=f"{method}: {metric}",
            estimate=mean_over_structures(
                [of(score) for score in scores],
                [score.structure for score in scores],
                [score.patient for score in scores],
                seed,
            ),
            comparison=f"mean of {', '.join(sorted({score.structure for score in scores}))}",
        )
        for metric, of in METRICS.items()
        for method, scores in by_method.items()
        if scores
    ]


def _differences(by_method: Mapping[str, Sequence[Score]], seed: int) -> list[Metric]:
    """Return the differences between the first method and each other method, over their common structures."""
    first, *others = by_method
    return [
        Metric(
            name=f"{first} minus {other}: {metric}",
            estimate=difference,
            comparison="paired, over their common structures",
        )
        for other in others
        for metric, of in METRICS.items()
        if (difference := paired_difference(by_method[first], by_method[other], of, seed)) is not None
    ]


def _structures(estimates: Estimates, methods: Sequence[str]) -> Table:
    rows: list[list[str | None]] = []
    for structure, by_method in estimates.items():
        counted = next(iter(by_method.values()))["Dice"]
        cells = [_cell(by_method[method][metric]) if method in by_method else None
                 for method in methods for metric in METRICS]  # fmt: skip
        rows.append([structure, f"{counted.num_samples} / {counted.num_patients}", *cells])
    columns = [f"{method} {metric}" for method in methods for metric in METRICS]
    return Table(title="Structures", columns=("structure", "scans / patients", *columns), rows=rows)


def _cell(estimate: Estimate) -> str:
    if estimate.num_patients < 2:  # one patient has no interval
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f} – {estimate.high:.3f})"


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
            score.overlap.predicted_ml,
        )
        for score in sorted(scores, key=lambda score: (score.scan, score.structure))
    ]
    columns = ("scan", "domain", "structure", "method", "Dice", "NSD", "HD95 mm", "true mL", "predicted mL")
    return Table(title="Single scans", columns=columns, rows=rows)
