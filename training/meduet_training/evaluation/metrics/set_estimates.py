"""Intervals for numbers that belong to a whole set, such as a FID or a mean over pairs.

Samples are drawn anew within each patient: an interval says what other crops of these patients would have
given. (Drawing patients, as `estimates.py` does, would leave out whole body regions of a small cohort, and a
distance of distributions would measure that.) A set with copies in it has less variety than one without, so a
drawn distance is too large on average; the interval is that of the draws, moved to have its mean at the
value.
"""

from collections.abc import Callable, Sequence

import numpy as np

from meduet_training.evaluation.metrics.estimates import DRAWS, INTERVAL, Estimate


def set_estimate(
    statistic: Callable[[np.ndarray], float],
    patients: Sequence[str] | np.ndarray,
    seed: int,
    draws: int = DRAWS,
) -> Estimate:
    """A statistic of a set and its interval.

    Args:
        statistic: of the set in which sample k occurs `counts[k]` times; all ones are the set itself.
        patients: of each sample.
    """
    names = np.asarray(patients)
    groups = [np.flatnonzero(names == name) for name in np.unique(names)]
    rng = np.random.default_rng(seed)
    value = statistic(np.ones(len(names)))
    drawn = np.array([statistic(_drawn(groups, len(names), rng)) for _ in range(draws)])
    low, high = np.percentile(drawn - drawn.mean() + value, INTERVAL)
    return Estimate(
        value=value, low=float(low), high=float(high), num_samples=len(names), num_patients=len(groups)
    )


def _drawn(groups: Sequence[np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    """How often each sample is drawn, when each patient's are drawn as often as there are."""
    counts = np.zeros(count)
    for group in groups:
        np.add.at(counts, rng.choice(group, size=len(group)), 1.0)
    return counts
