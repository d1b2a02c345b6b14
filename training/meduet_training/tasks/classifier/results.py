"""How a trained classifier does on the test scans, said once at the end of its run.

More, beside other methods, is `meduet-evaluate classification`'s business.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from meduet_training.data.caches.factors import FactorEntry
from meduet_training.evaluation.metrics.classification_scores import classification_scores
from meduet_training.evaluation.sections import EvaluationSection, Metric, Table

HOW = (
    "The weights that did best on the validation, on the scans of the test split, each scan whole. Balanced "
    "accuracy and AUC count every class that is there alike. Intervals draw patients."
)


def results_table(
    probabilities: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    entries: Sequence[FactorEntry],
    seed: int,
) -> EvaluationSection:
    """Balanced accuracy and AUC with their intervals, and who was taken for whom.

    Args:
        probabilities: (N, K) of scans whose classes are `labels` (N,), two or more of them.
    """
    scores = classification_scores(probabilities, labels, [entry.patient for entry in entries], seed)
    shown = np.unique(labels)
    metrics = (
        Metric(name="balanced accuracy", estimate=scores.accuracy, comparison=f"chance {1 / len(names):.2f}"),
        Metric(name="AUC", estimate=scores.auc, comparison="chance 0.50"),
    )
    confusion = [
        (name, *(int(count) for count in row))
        for number, (name, row) in enumerate(zip(names, scores.confusion, strict=True))
        if number in shown
    ]
    single = [
        (str(number), entry.domain, names[int(label)], names[int(row.argmax())], float(row.max()))
        for number, (entry, label, row) in enumerate(
            zip(entries, labels.tolist(), probabilities, strict=True), start=1
        )
    ]
    return EvaluationSection(
        title="Test scans",
        description=HOW,
        metrics=metrics,
        tables=(
            Table(
                title="Scans of each class, and what they were taken for",
                columns=("class", *names),
                rows=confusion,
            ),
            Table(
                title="Single scans",
                columns=("scan", "domain", "class", "found", "its probability"),
                rows=single,
            ),
        ),
        seed=seed,
    )


def scan_records(
    probabilities: np.ndarray, labels: np.ndarray, names: Sequence[str], entries: Sequence[FactorEntry]
) -> list[dict[str, Any]]:
    """What was found in each scan, as plain data; scans are named by their hashes."""
    return [
        {
            "scan": entry.key,
            "domain": entry.domain,
            "class": names[label],
            "probabilities": dict(zip(names, map(float, row), strict=True)),
        }
        for entry, label, row in zip(entries, labels.tolist(), probabilities, strict=True)
    ]
