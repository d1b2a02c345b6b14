"""Presets of the generator and of the ControlNet. `paper` follows Table 10 (its columns corrected)."""

from collections.abc import Callable
from dataclasses import replace

from meduet_training.engine.config import TrainingConfig
from napari_meduet.core.synthesis.control_objective import ControlConfig
from napari_meduet.core.synthesis.generator import GeneratorConfig
from napari_meduet.core.synthesis.objective import GenerationConfig


def paper() -> TrainingConfig:
    """SiT-B/4 for two million steps with a batch of 64; the paper has 16 on each of 4 devices.

    Table 10 gives neither a weight decay nor the end of the cosine. SiT has no weight decay. Here the
    learning rate falls to a hundredth.
    """
    return TrainingConfig(
        network=GeneratorConfig.base(),
        objective=GenerationConfig(),
        batch=64,
        learning_rate=5e-5,
        end_learning_rate=5e-7,
        weight_decay=0.0,
        betas=(0.9, 0.999),
    )


def small() -> TrainingConfig:
    """Width 384 and 8 blocks on crops of 192 mm, for a day on one GPU.

    It has a tenth of the steps at four times the learning rate.
    """
    return replace(
        paper(),
        network=GeneratorConfig.small(),
        objective=GenerationConfig(total_steps=200_000),
        learning_rate=2e-4,
        end_learning_rate=2e-6,
    )


def tiny() -> TrainingConfig:
    """Width 192 and 6 blocks on crops of 144 mm, for 90 minutes on two CPU cores.

    The averages of weights and moments cover fewer steps, because there are few. Spatial content is learnt in
    a few hundred steps and the pooled factors in many more, so spatial content is dropped in most rows.
    """
    return replace(
        paper(),
        network=GeneratorConfig.tiny(),
        objective=GenerationConfig(total_steps=5_000, drop_spatial=0.85, ema_decay=0.999),
        batch=16,
        learning_rate=1e-3,
        end_learning_rate=1e-5,
        betas=(0.9, 0.99),
        warmup=0.02,
    )


def control() -> TrainingConfig:
    """A ControlNet for any generator, with a tenth of the learning rate of a tiny generator (ours)."""
    return replace(
        paper(),
        network=GeneratorConfig.tiny(),  # the configuration of the model's generator replaces it
        objective=ControlConfig(total_steps=20_000, ema_decay=0.999),
        batch=16,
        learning_rate=1e-4,
        end_learning_rate=1e-6,
    )


PRESETS: dict[str, Callable[[], TrainingConfig]] = {"tiny": tiny, "small": small, "paper": paper}
