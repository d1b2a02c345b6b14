"""Segmenters by name, the paper's first (specification, section 10); what differs is said in each.

The sizes of the encoder are those of the model that is fine-tuned, and the classes those of the labels.
"""

from collections.abc import Callable
from dataclasses import replace

from meduet_training.engine.config import TrainingConfig
from meduet_training.tasks.finetuning.objectives import SegmentationConfig
from napari_meduet.core.analysis.unetr import UNETRConfig


def paper() -> TrainingConfig:
    """AdamW with 2e-4 and a weight decay of 1e-5, 4 sub-crops a step.

    The supplement names neither steps nor the end of the rate: 30 000 and a hundredth are ours.
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
    """Minutes on two CPU cores: few steps at twenty times the rate, and the light head.

    So few steps that the averages look back on few; the encoder is trained at the paper's pace, lest what it
    knows be lost while the head knows nothing.
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
