"""Results of a trained classifier on the test scans, written once at the end of its run.

`meduet-evaluate classification` measures an exported classifier (evaluation/classification.py).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from meduet_training.data.caches.factors import FactorEntry
from meduet_training.evaluation.metrics.classification_scores import classification_scores
from meduet_training.evaluation.sections import EvaluationSection, Metric, Table

HOW = (
    "The weights of the best validation, on whole scans of the test split. Every class has the same weight "
    "in balanced accuracy and AUC. Confidence intervals resample patients."
)


def results_table(
    probabilities: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    entries: Sequence[FactorEntry],
    seed: int,
) -> EvaluationSection:
    """Return balanced accuracy and AUC with their confidence intervals, and the confusion matrix.

    Args:
        probabilities: (N, K), for each scan and class.
        labels: (N,), the true classes; at least two different ones.
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
                title="Scans of each class, and the predicted classes",
                columns=("class", *names),
                rows=confusion,
            ),
            Table(
                title="Single scans",
                columns=("scan", "domain", "class", "predicted", "probability"),
                rows=single,
            ),
        ),
        seed=seed,
    )


def scan_records(
    probabilities: np.ndarray, labels: np.ndarray, names: Sequence[str], entries: Sequence[FactorEntry]
) -> list[dict[str, Any]]:
    """Return the probabilities of each scan as plain data. Scans are named by their hashes."""
    return [
        {
            "scan": entry.key,
            "domain": entry.domain,
            "class": names[label],
            "probabilities": dict(zip(names, map(float, row), strict=True)),
        }
        for entry, label, row in zip(entries, labels.tolist(), probabilities, strict=True)
    ]
