"""Presets of pretraining. Each docstring says how it differs from the paper (specification, section 6)."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from meduet_training.data.sources.protocol import BatchSource
from meduet_training.engine.config import TrainingConfig
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import Ablation, ObjectiveConfig
from napari_meduet.core.pretexts.residual_unet import ResidualUNetConfig

GROUPS = 24  # anatomies cut from each scan, each in four appearances


def paper() -> TrainingConfig:
    """Sec. 4.1 and the text of v1, on one device: a batch of 64, where the paper has 64 x 4."""
    return TrainingConfig(network=MeDUETConfig.base(), objective=ObjectiveConfig.paper())


def base() -> TrainingConfig:
    """The paper's network and schedule, with the corrections of docs/departures.md."""
    return replace(paper(), objective=ObjectiveConfig.corrected())


def small() -> TrainingConfig:
    """384 x 8, for at most 500 scans on one GPU; few scans a domain, so pairs are drawn across domains."""
    return replace(
        base(),
        network=MeDUETConfig.small(),
        objective=ObjectiveConfig.corrected(total_steps=30_000, pairing="cross_domain"),
        batch=48,
    )


def tiny() -> TrainingConfig:
    """192 x 6, half an hour on two CPU cores: from the linear code, at ten times the learning rate."""
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
VOXEL_NETWORKS = {  # of the same presets, for a pretext on voxels; all read 96^3
    "tiny": ResidualUNetConfig(widths=(8, 16, 32, 64), num_blocks=(1, 1, 1, 1)),
    "small": ResidualUNetConfig(widths=(16, 32, 64, 128, 160, 160)),
    "base": ResidualUNetConfig(),
}


def with_domains_of(training: TrainingConfig, source: BatchSource[Any]) -> TrainingConfig:
    """Return the training with one class for each domain of the data."""
    if not isinstance(training.network, MeDUETConfig):
        return training
    return replace(training, network=replace(training.network, num_domains=len(source.domains)))


def in_the_papers_words(training: TrainingConfig) -> TrainingConfig:
    """The same run with the objective of v1's text."""
    return replace(training, objective=ObjectiveConfig.paper(total_steps=training.objective.total_steps))


def without(training: TrainingConfig, terms: Iterable[Ablation]) -> TrainingConfig:
    """The rows of Tables 5 and 6: the same run without some of its terms."""
    return replace(training, objective=replace(training.objective, without=tuple(terms)))
