"""How far a measured number can be trusted: patients drawn anew a thousand times (specification, section 14).

Scans of one patient are not independent, and neither are sub-volumes of one scan: whole patients are drawn,
so that an interval is as wide as the few patients make it. With one patient there is nothing to draw from;
what is drawn then (slices) is said where it is done.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 1000
INTERVAL = (2.5, 97.5)  # percentiles


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with the 95 % bootstrap interval around it, and what it was measured on."""

    value: float
    low: float
    high: float
    num_samples: int
    num_patients: int


def estimate(
    statistic: Callable[[np.ndarray], float], patients: Sequence[str] | np.ndarray, seed: int
) -> Estimate:
    """A statistic of all samples, and its interval over patients.

    Args:
        statistic: of the samples with these indices, some of them several times; nan where they cannot tell
            (as an AUC of one class), and the draw is left out.
        patients: of each sample.
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
    """The mean over samples, and its interval over patients."""
    numbers = np.asarray(values, np.float64)
    return estimate(lambda indices: float(numbers[indices].mean()), patients, seed)
