"""A metric with its 95 % bootstrap interval over patients (specification, section 14).

Scans of one patient are not independent, and neither are sub-volumes of one scan. The bootstrap therefore
draws whole patients, so that the interval is as wide as the number of patients requires. With one patient the
interval has no width; functions that draw other units instead (slices) say so in their docstrings.
set_estimates.py holds the intervals of metrics that belong to a whole set, such as a FID.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 1000  # bootstrap samples
INTERVAL = (2.5, 97.5)  # percentiles


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its 95 % bootstrap interval, and the numbers of samples and patients behind it."""

    value: float
    low: float
    high: float
    num_samples: int
    num_patients: int


def estimate(
    statistic: Callable[[np.ndarray], float], patients: Sequence[str] | np.ndarray, seed: int
) -> Estimate:
    """Return a statistic of all samples, with its interval over patients.

    Args:
        statistic: function of sample indices, which may repeat. It returns nan where the samples do not
            define it, such as an AUC of one class; the bootstrap then leaves the draw out.
        patients: the patient of each sample.
        seed: seed of the bootstrap.

    Examples:
        >>> dice = np.array([0.9, 0.8, 0.7])
        >>> found = estimate(lambda rows: float(dice[rows].mean()), ["a", "a", "b"], seed=0)
        >>> round(found.value, 2), found.num_patients
        (0.8, 2)
    """
    names = np.asarray(patients)
    groups = [np.flatnonzero(names == name) for name in np.unique(names)]
    rng = np.random.default_rng(seed)
    draws = [
        statistic(np.concatenate([groups[k] for k in rng.integers(len(groups), size=len(groups))]))
        for _ in range(DRAWS)
    ]
    low, high = np.nanpercentile(draws, INTERVAL)
    return Estimate(
        value=statistic(np.arange(len(names))),
        low=float(low),
        high=float(high),
        num_samples=len(names),
        num_patients=len(groups),
    )


def mean_estimate(values: Sequence[float], patients: Sequence[str], seed: int) -> Estimate:
    """Return the mean over samples, with its interval over patients."""
    numbers = np.asarray(values, np.float64)
    return estimate(lambda indices: float(numbers[indices].mean()), patients, seed)
