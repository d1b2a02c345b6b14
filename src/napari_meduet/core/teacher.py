"""The teacher: a slow average of the student (M-19)."""

import math

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

FIRST_DECAY, LAST_DECAY = 0.997, 0.9997  # M-19


def teacher_decay(step: int, total_steps: int) -> float:
    """How much of the teacher stays at an optimizer step: 0.997 at first, 0.9997 at last, along a cosine."""
    done = min(step / total_steps, 1.0)
    return LAST_DECAY - (LAST_DECAY - FIRST_DECAY) * (1 + math.cos(math.pi * done)) / 2


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Move each of the teacher's parameters towards the student's, in place."""
    average = get_ema_multi_avg_fn(decay)
    average(list(teacher.parameters()), list(student.parameters()), None)


def ramped_decay(step: int, decay: float) -> float:
    """How much of an average stays at a step of a training of few steps: little at first, `decay` later."""
    return min(decay, (1 + step) / (10 + step))
