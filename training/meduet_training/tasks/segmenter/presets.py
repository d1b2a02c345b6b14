"""Presets of the segmenter, the paper's first. Each says what differs from it (specification, section 10).

The sizes of the encoder are those of the fine-tuned model, and the classes those of the labels.
"""

from collections.abc import Callable
from dataclasses import replace

from meduet_training.engine.config import TrainingConfig
from meduet_training.tasks.finetuning.objectives import SegmentationConfig
from napari_meduet.core.analysis.unetr import UNETRConfig


def paper() -> TrainingConfig:
    """AdamW with a learning rate of 2e-4 and a weight decay of 1e-5, and 4 sub-crops in each step.

    The supplement gives neither the number of steps nor the end of the learning rate: 30 000 and a hundredth
    are ours.
    """
    return TrainingConfig(
        network=UNETRConfig(num_classes=2),
        objective=SegmentationConfig(total_steps=30_000),
        batch=4,
        learning_rate=2e-4,
        end_learning_rate=2e-6,
        weight_decay=1e-5,
        betas=(0.9, 0.999),
    )


def tiny() -> TrainingConfig:
    """The light head, and few steps at twenty times the learning rate: minutes on two CPU cores.

    The averages of weights and moments cover fewer steps, because there are few. The encoder keeps the
    learning rate of the paper: a higher one would destroy the pretrained weights before the head has learnt
    anything.
    """
    return replace(
        paper(),
        network=UNETRConfig(num_classes=2, features=32, head="light"),
        objective=SegmentationConfig(total_steps=600, ema_decay=0.99, encoder_rate=0.15),
        learning_rate=4e-3,
        end_learning_rate=4e-5,
        betas=(0.9, 0.99),
        warmup=0.05,
    )


PRESETS: dict[str, Callable[[], TrainingConfig]] = {"tiny": tiny, "paper": paper}
