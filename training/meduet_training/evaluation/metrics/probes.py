"""Linear probes: whether the domain can be read from a factor (specification, section 14).

It should be legible in the style and not in the content. A probe is a logistic regression on standardised
features, judged on patients that it did not learn from.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from meduet_training.evaluation.metrics.estimates import Estimate, estimate

FOLDS = 5
MAX_ITERATIONS = 1000


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a probe found.

    Attributes:
        accuracy: balanced over the domains.
        chance: of guessing a domain.
        majority: share of the most frequent domain.
    """

    accuracy: Estimate
    chance: float
    majority: float
    num_domains: int
    num_folds: int


def probe(
    features: np.ndarray,
    domains: np.ndarray,
    patients: np.ndarray,
    seed: int,
    judged: np.ndarray | None = None,
) -> Probe:
    """Read the domains (N,) from features (N, D), in at most 5 folds that keep each patient together.

    Args:
        judged: samples (N,) whose reading counts; the others only teach. None: all count.

    Raises:
        ValueError: there are not two domains and two patients.
    """
    names, counts = np.unique(domains.astype(str), return_counts=True)
    num_patients = len(np.unique(patients.astype(str)))
    if len(names) < 2 or num_patients < 2:
        raise ValueError(f"A probe needs two domains and two patients; got {len(names)} and {num_patients}.")
    folds = min(FOLDS, num_patients)
    truth, groups = domains.astype(str), patients.astype(str)
    predicted = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS, class_weight="balanced")),
        features,
        truth,
        groups=groups,
        cv=StratifiedGroupKFold(folds, shuffle=True, random_state=seed),
    )
    found = np.asarray(predicted)
    if judged is not None:
        truth, found, groups = truth[judged], found[judged], groups[judged]
    return Probe(
        accuracy=estimate(lambda indices: balanced_accuracy(truth[indices], found[indices]), groups, seed),
        chance=1.0 / len(names),
        majority=float(counts.max() / counts.sum()),
        num_domains=len(names),
        num_folds=folds,
    )


def balanced_accuracy(truth: np.ndarray, found: np.ndarray) -> float:
    """Mean over the domains of the share of their samples that were recognised."""
    return float(np.mean([(found[truth == name] == name).mean() for name in np.unique(truth)]))
