"""Linear probes of the domain in content and style (specification, section 14).

The style should predict the domain, and the content should not. A probe is a logistic regression on
standardised features, evaluated on patients outside its training folds.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from meduet_training.evaluation.metrics.estimates import Estimate, estimate

FOLDS = 5
MAX_ITERATIONS = 1000


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Result of a probe.

    Attributes:
        accuracy: balanced accuracy over the domains.
        chance: balanced accuracy of a random guess.
        majority: fraction of samples of the most frequent domain.
    """

    accuracy: Estimate
    chance: float
    majority: float
    num_domains: int
    num_folds: int


def linear_classifier() -> Pipeline:
    """Return an unfitted logistic regression on standardised features, with equal weight for every class."""
    return make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS, class_weight="balanced")
    )


def probe(
    features: np.ndarray,
    domains: np.ndarray,
    patients: np.ndarray,
    seed: int,
    evaluated: np.ndarray | None = None,
) -> Probe:
    """Fit and evaluate a probe by cross-validation, in at most 5 folds that keep each patient together.

    Args:
        features: (N, D).
        domains, patients: (N,), names of each sample.
        seed: seed of the folds and of the bootstrap.
        evaluated: (N,), whether a sample is evaluated; the others are only used to fit. None: all samples.

    Raises:
        ValueError: there are fewer than two domains or two patients.

    Examples:
        >>> result = probe(style, domains, patients, seed=0)
        >>> f"{result.accuracy.value:.2f}, chance {result.chance:.2f}"
    """
    names, counts = np.unique(domains.astype(str), return_counts=True)
    num_patients = len(np.unique(patients.astype(str)))
    if len(names) < 2 or num_patients < 2:
        raise ValueError(f"A probe needs two domains and two patients; got {len(names)} and {num_patients}.")
    folds = min(FOLDS, num_patients)
    truth, groups = domains.astype(str), patients.astype(str)
    predicted = np.asarray(
        cross_val_predict(
            linear_classifier(),
            features,
            truth,
            groups=groups,
            cv=StratifiedGroupKFold(folds, shuffle=True, random_state=seed),
        )
    )
    if evaluated is not None:
        truth, predicted, groups = truth[evaluated], predicted[evaluated], groups[evaluated]
    return Probe(
        accuracy=estimate(
            lambda indices: balanced_accuracy(truth[indices], predicted[indices]), groups, seed
        ),
        chance=1.0 / len(names),
        majority=float(counts.max() / counts.sum()),
        num_domains=len(names),
        num_folds=folds,
    )


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the fraction of correct predictions in each class, averaged over the classes."""
    return float(np.mean([(predicted[truth == name] == name).mean() for name in np.unique(truth)]))
