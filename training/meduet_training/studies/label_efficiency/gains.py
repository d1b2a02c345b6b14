"""By how much one way of learning beats another, seed by seed (specification, section 14).

Two runs of one seed learn the same patients' labels from the same crops, so their scores are a pair: what
the draw of patients did to both cancels in the difference. The interval is over seeds, and says nothing of
how test patients differ.
"""

from collections.abc import Mapping

from meduet_training.evaluation.metrics.estimates import Estimate, mean_estimate


def over_seeds(scores: Mapping[int, float], seed: int) -> Estimate:
    """The mean score, and its 95 % bootstrap interval over seeds.

    Args:
        scores: by the seed of their run.
        seed: of the bootstrap's own draws.
    """
    return mean_estimate(list(scores.values()), [str(run) for run in scores], seed)


def paired_gain(scores: Mapping[int, float], others: Mapping[int, float], seed: int) -> Estimate | None:
    """By how much the scores are above the others' on average, over the seeds that both have.

    None where they have none in common.
    """
    gains = {run: scores[run] - others[run] for run in scores if run in others}
    return over_seeds(gains, seed) if gains else None
