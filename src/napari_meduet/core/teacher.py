"""Exponential moving averages of weights: the pretraining teacher (M-19) and other averages."""

import math

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

FIRST_DECAY, LAST_DECAY = 0.997, 0.9997  # M-19


def teacher_decay(step: int, total_steps: int) -> float:
    """Return the decay of the teacher at a step: from 0.997 to 0.9997 along a cosine."""
    done = min(step / total_steps, 1.0)
    return LAST_DECAY - (LAST_DECAY - FIRST_DECAY) * (1 + math.cos(math.pi * done)) / 2


def ramped_decay(step: int, decay: float) -> float:
    """Return the decay of an average at a step: small at first, `decay` later.

    A short training then does not keep its initial weights in the average.
    """
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Move each parameter of the teacher towards that of the student, in place."""
    average = get_ema_multi_avg_fn(decay)
    average(list(teacher.parameters()), list(student.parameters()), None)
