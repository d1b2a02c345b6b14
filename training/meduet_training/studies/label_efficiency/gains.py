"""Gains of one arm over another, paired by seed (specification, section 14).

Two runs of one seed train on the labels of the same patients with the same crops, so the effect of the
sampled patients cancels in their difference. Intervals are over seeds and do not describe other test
patients.
"""

from collections.abc import Mapping

from meduet_training.evaluation.metrics.estimates import Estimate, mean_estimate


def over_seeds(scores: Mapping[int, float], seed: int) -> Estimate:
    """Return the mean score, with its 95 % bootstrap interval over seeds.

    Args:
        scores: score of each run, by seed.
        seed: seed of the bootstrap.
    """
    return mean_estimate(list(scores.values()), [str(run) for run in scores], seed)


def paired_gain(scores: Mapping[int, float], others: Mapping[int, float], seed: int) -> Estimate | None:
    """Return the mean difference between two sets of scores over their common seeds, if there are any."""
    gains = {run: scores[run] - others[run] for run in scores if run in others}
    return over_seeds(gains, seed) if gains else None
