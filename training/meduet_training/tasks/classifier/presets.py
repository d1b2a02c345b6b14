"""Classifiers by name, the paper's first (specification, section 10); what differs is said in each.

The sizes of the encoder are those of the model that is fine-tuned, and the classes those of the scans.
"""

from collections.abc import Callable
from dataclasses import replace

from meduet_training.engine.config import TrainingConfig
from meduet_training.tasks.finetuning.objectives import ClassificationConfig
from napari_meduet.core.analysis.classifier import ClassifierConfig


def paper() -> TrainingConfig:
    """AdamW with 2e-4 and a weight decay of 1e-5, 4 sub-crops of each of 8 scans a step.

    The supplement names neither scans a step, nor steps, nor the end of the rate: these are ours.
    """
    return TrainingConfig(
        network=ClassifierConfig(num_classes=2),
        objective=ClassificationConfig(total_steps=10_000),
        batch=32,
        learning_rate=2e-4,
        end_learning_rate=2e-6,
        weight_decay=1e-5,
        betas=(0.9, 0.999),
    )


def tiny() -> TrainingConfig:
    """Minutes on two CPU cores: few steps of 4 scans, so few that the averages look back on few.

    The linear layer on the pooled tokens learns at 25 times the rate, without which it would be the last to
    learn; the encoder at the paper's.
    """
    return replace(
        paper(),
        objective=ClassificationConfig(total_steps=400, ema_decay=0.98, encoder_rate=0.04),
        batch=16,
        learning_rate=5e-3,
        end_learning_rate=5e-5,
        betas=(0.9, 0.99),
        warmup=0.05,
    )


PRESETS: dict[str, Callable[[], TrainingConfig]] = {"tiny": tiny, "paper": paper}
