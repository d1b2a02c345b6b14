"""Presets of the classifier, the paper's first. Each says what differs from it (specification, section 10).

The sizes of the encoder are those of the fine-tuned model, and the classes those of the scans.
"""

from collections.abc import Callable
from dataclasses import replace

from meduet_training.engine.config import TrainingConfig
from meduet_training.tasks.finetuning.objectives import ClassificationConfig
from napari_meduet.core.analysis.classifier import ClassifierConfig


def paper() -> TrainingConfig:
    """AdamW with a learning rate of 2e-4 and a weight decay of 1e-5, and 4 sub-crops of 8 scans in each step.

    The supplement gives neither the number of scans and steps nor the end of the learning rate; these are
    ours.
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
    """Few steps of 4 scans each: minutes on two CPU cores.

    The averages of weights and moments cover fewer steps, because there are few. The linear layer on the
    pooled tokens has 25 times the learning rate of the paper, because it would learn last otherwise. The
    encoder keeps the learning rate of the paper.
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
