"""Intervals of metrics that belong to a whole set, such as a FID or a mean over pairs.

The bootstrap draws samples within each patient, so an interval describes other crops of the same patients.
Drawing patients, as estimates.py does, would leave out whole body regions of a small cohort, and a distance
between distributions would measure that. A set with repeated samples has less variety, so a drawn distance is
too large on average; the interval of the draws is therefore shifted to have its mean at the value.
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
    """Return a statistic of a set, with its interval.

    Args:
        statistic: function of counts (N,); sample k occurs `counts[k]` times in the set.
        patients: the patient of each sample.
        seed: seed of the bootstrap.
        draws: number of bootstrap samples.
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
    """Draw the samples of each patient with replacement, and return the count of each sample."""
    counts = np.zeros(count)
    for group in groups:
        np.add.at(counts, rng.choice(group, size=len(group)), 1.0)
    return counts
