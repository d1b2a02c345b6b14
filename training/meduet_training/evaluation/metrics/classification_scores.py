"""AUC, balanced accuracy and confusion matrix of a classifier of whole scans.

Both scores give every class the same weight, however many scans it has. Their intervals are over patients.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import confusion_matrix, roc_auc_score

from meduet_training.evaluation.metrics.estimates import Estimate, estimate
from meduet_training.evaluation.metrics.probes import balanced_accuracy


@dataclass(frozen=True, kw_only=True)
class ClassificationScores:
    """Metrics of a classifier on test scans.

    Attributes:
        auc: area under the ROC curve of each class against the others, averaged over the classes.
        accuracy: balanced accuracy; chance is `1 / number of classes`.
        confusion: numbers of scans (K, K); rows are true classes, columns predicted classes.
        majority: fraction of scans of the most frequent class.
    """

    auc: Estimate
    accuracy: Estimate
    confusion: np.ndarray
    majority: float


def classification_scores(
    probabilities: np.ndarray, truth: np.ndarray, patients: Sequence[str], seed: int
) -> ClassificationScores:
    """Compute the metrics of predicted probabilities.

    Args:
        probabilities: (N, K), one row for each scan.
        truth: (N,), the true classes, from 0 to K - 1.
        patients: the patient of each scan.
        seed: seed of the bootstrap.

    Raises:
        ValueError: all scans have the same class.
    """
    if len(np.unique(truth)) < 2:
        raise ValueError(
            "The metrics of a classifier need scans of two or more classes; got scans of one class."
        )
    predicted = probabilities.argmax(axis=1)
    return ClassificationScores(
        auc=estimate(lambda rows: mean_auc(probabilities[rows], truth[rows]), patients, seed),
        accuracy=estimate(lambda rows: balanced_accuracy(truth[rows], predicted[rows]), patients, seed),
        confusion=confusion_matrix(truth, predicted, labels=np.arange(probabilities.shape[1])),
        majority=float(np.bincount(truth).max() / len(truth)),
    )


def mean_auc(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Return the area under the ROC curve of each present class against the others, averaged.

    The result is nan where all scans have the same class.
    """
    present = np.unique(truth)
    if len(present) < 2:
        return float("nan")
    return float(np.mean([roc_auc_score(truth == number, probabilities[:, number]) for number in present]))
