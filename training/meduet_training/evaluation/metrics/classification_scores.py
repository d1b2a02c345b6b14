"""How well whole scans are classified: AUC and balanced accuracy, with intervals over patients, and who is
taken for whom.

Both count every class alike, however many scans it has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import confusion_matrix, roc_auc_score

from meduet_training.evaluation.metrics.estimates import Estimate, estimate
from meduet_training.evaluation.metrics.probes import balanced_accuracy


@dataclass(frozen=True, kw_only=True)
class ClassificationScores:
    """Of a classifier on scans it did not learn from.

    Attributes:
        auc: of each class against the rest, averaged over those that can be told.
        accuracy: balanced; `1 / number of classes` is chance.
        confusion: row: the true class, column: the class it was taken for; in scans.
        majority: share of the most frequent class.
    """

    auc: Estimate
    accuracy: Estimate
    confusion: np.ndarray
    majority: float


def classification_scores(
    probabilities: np.ndarray, truth: np.ndarray, patients: Sequence[str], seed: int
) -> ClassificationScores:
    """Judge probabilities (N, K) of scans whose class is `truth` (N,), from 0 to K - 1.

    Raises:
        ValueError: all scans are of one class: nothing can be told apart.
    """
    if len(np.unique(truth)) < 2:
        raise ValueError("A classifier is judged by scans of two classes or more; these are all of one.")
    found = probabilities.argmax(axis=1)
    return ClassificationScores(
        auc=estimate(lambda rows: mean_auc(probabilities[rows], truth[rows]), patients, seed),
        accuracy=estimate(lambda rows: balanced_accuracy(truth[rows], found[rows]), patients, seed),
        confusion=confusion_matrix(truth, found, labels=np.arange(probabilities.shape[1])),
        majority=float(np.bincount(truth).max() / len(truth)),
    )


def mean_auc(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve of each class against the rest, averaged over the classes that are there.

    nan where all are of one class.
    """
    present = np.unique(truth)
    if len(present) < 2:
        return float("nan")
    return float(np.mean([roc_auc_score(truth == number, probabilities[:, number]) for number in present]))
