"""Presets of the pretraining, the paper's first (specification, section 6). Each says what differs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from meduet_training.data.sources.protocol import BatchSource
from meduet_training.engine.config import TrainingConfig
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import ObjectiveConfig
from napari_meduet.core.pretexts.residual_unet import ResidualUNetConfig

GROUPS = 24  # anatomies cut from each scan, each with four appearances


def paper() -> TrainingConfig:
    """Sec. 4.1 and the text of v1, with a batch of 64; the paper has 64 on each of 4 devices."""
    return TrainingConfig(network=MeDUETConfig.base(), objective=ObjectiveConfig.paper())


def base() -> TrainingConfig:
    """The paper's network and schedule, with the corrections of docs/departures.md."""
    return replace(paper(), objective=ObjectiveConfig.corrected())


def small() -> TrainingConfig:
    """Width 384 and 8 blocks, for at most 500 scans on one GPU.

    Each domain then has few scans, so pairs are drawn across domains.
    """
    return replace(
        base(),
        network=MeDUETConfig.small(),
        objective=ObjectiveConfig.corrected(total_steps=30_000, pairing="cross_domain"),
        batch=48,
    )


def tiny() -> TrainingConfig:
    """Width 192 and 6 blocks, for half an hour on two CPU cores.

    It has a linear start and ten times the learning rate.
    """
    return replace(
        small(),
        network=MeDUETConfig.tiny(),
        objective=ObjectiveConfig.corrected(total_steps=300, pairing="cross_domain"),
        batch=8,
        learning_rate=1e-3,
        end_learning_rate=1e-5,
        warmup=0.03,
        linear_start=True,
    )


PRESETS: dict[str, Callable[[], TrainingConfig]] = {"tiny": tiny, "small": small, "base": base}
VOXEL_NETWORKS = {  # networks of the same presets for a pretext on voxels; all read 96^3 voxels
    "tiny": ResidualUNetConfig(widths=(8, 16, 32, 64), num_blocks=(1, 1, 1, 1)),
    "small": ResidualUNetConfig(widths=(16, 32, 64, 128, 160, 160)),
    "base": ResidualUNetConfig(),
}


def with_domains_of(training: TrainingConfig, source: BatchSource[Any]) -> TrainingConfig:
    """Return the training with one class for each domain of the data."""
    if not isinstance(training.network, MeDUETConfig):
        return training
    return replace(training, network=replace(training.network, num_domains=len(source.domains)))


def with_objective_of_the_paper(training: TrainingConfig) -> TrainingConfig:
    """Return the training with the objective of the text of v1."""
    return replace(training, objective=ObjectiveConfig.paper(total_steps=training.total_steps))
