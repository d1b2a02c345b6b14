"""Schedules in steps, not epochs (specification, section 6)."""

import math


def warmup_cosine(step: int, steps: int, *, end: float, warmup: float = 0.01) -> float:
    """Share of the peak learning rate: linear over the first `warmup` of them, then a cosine to `end`."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    progress = (step - rise) / max(1, steps - rise)
    return end + (1.0 - end) * 0.5 * (1.0 + math.cos(math.pi * progress))
