"""Learning-rate schedule, counted in steps (specification, section 6)."""

import math


def warmup_cosine(step: int, steps: int, *, end: float, warmup: float = 0.01) -> float:
    """Return the fraction of the peak learning rate at a step: linear warm-up, then a cosine.

    Args:
        end: fraction of the peak at the last step.
        warmup: fraction of the steps used for the warm-up.
    """
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    progress = (step - rise) / max(1, steps - rise)
    return end + (1.0 - end) * 0.5 * (1.0 + math.cos(math.pi * progress))
