"""Generators by name, the paper's first (Table 10, its columns put right); what differs is said in each."""

from collections.abc import Callable
from dataclasses import replace

from meduet_training.engine.config import TrainingConfig
from napari_meduet.core.synthesis.control_objective import ControlConfig
from napari_meduet.core.synthesis.generator import GeneratorConfig
from napari_meduet.core.synthesis.objective import GenerationConfig


def paper() -> TrainingConfig:
    """SiT-B/4 for two million steps of 64, where the paper has 16 on each of 4 devices.

    Table 10 names neither weight decay nor an end of the cosine; SiT has none of the first, and here the rate
    falls to a hundredth.
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
    """384 x 8 on 192 mm, a day on one GPU: a tenth of the steps, at four times the rate."""
    return replace(
        paper(),
        network=GeneratorConfig.small(),
        objective=GenerationConfig(total_steps=200_000),
        learning_rate=2e-4,
        end_learning_rate=2e-6,
    )


def tiny() -> TrainingConfig:
    """192 x 6 on 144 mm, 90 minutes on two CPU cores: so few steps that the average looks back on few.

    The content of places is learnt in a few hundred steps, what pooled factors mean in many more.
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
    """A ControlNet, whatever its generator: its rate is a tenth of what a tiny generator bears (ours)."""
    return replace(
        paper(),
        network=GeneratorConfig.tiny(),  # the model's own takes its place
        objective=ControlConfig(total_steps=20_000, ema_decay=0.999),
        batch=16,
        learning_rate=1e-4,
        end_learning_rate=1e-6,
    )


PRESETS: dict[str, Callable[[], TrainingConfig]] = {"tiny": tiny, "small": small, "paper": paper}
