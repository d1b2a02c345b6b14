"""A trained network becomes a model folder: card, half-precision weights, the style of each domain."""

import copy
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from meduet_training.data.cohort.scans import Scan
from meduet_training.engine.resume import TrainedNetwork
from napari_meduet.core.meduet import MeDUET
from napari_meduet.errors import InputError
from napari_meduet.models.card import ModelCard, ProfileCard, TokenizerCard, TrainingSource
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model
from napari_meduet.models.saving import save_model
from napari_meduet.models.styles import Style
from napari_meduet.pipelines.common.progress import null_progress
from napari_meduet.pipelines.common.provenance import commit
from napari_meduet.pipelines.factors import mean_style, measure_scan
from napari_meduet.tokenizers.wavelet import WaveletTokenizer
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.intensity import CT_FULL
from napari_meduet.volumes.preparation import WORKING_SPACING_MM


def write_model(
    folder: Path,
    *,
    name: str,
    description: str,
    tokenizer: WaveletTokenizer,
    trained: TrainedNetwork,
    scans: list[Scan],
    training: Mapping[str, Any],
    seeds: Mapping[str, int],
    overwrite: bool,
) -> ModelCard:
    """Write what `load_model` reads, and read it again: its network must be the one that was trained.

    Args:
        scans: that it learned from; their domains are the styles it knows. Without them it knows none.
        training: what the card says of how it was made.
    """
    card = ModelCard(
        name=name,
        description=description,
        modalities=("CT", "MR"),
        tokenizer=TokenizerCard(
            name=tokenizer.name,
            config=asdict(tokenizer.config),
            latent_mean=tuple(trained.settings.latent_mean),
            latent_std=tuple(trained.settings.latent_std),
        ),
        meduet=asdict(trained.student.config),
        profiles={"CT": ProfileCard(name=CT_FULL.name, knots=CT_FULL.knots), "MR": ProfileCard(name="mr")},
        working_spacing_mm=WORKING_SPACING_MM,
        domains=tuple(trained.settings.domains),
        training_data=_sources(scans),
        training=dict(training),
        seeds=dict(seeds),
        commit=commit(),
    )
    weights = _halved(tokenizer.state_dict()), _halved(trained.student.state_dict())
    card = save_model(folder, card, *weights, overwrite=overwrite)
    _check_round_trip(load_model(folder, "cpu"), trained.student)
    if scans:
        styles = known_styles(load_model(folder, "cpu"), scans)
        card = save_model(folder, card, *weights, styles, overwrite=True)
    return card


@torch.inference_mode()
def known_styles(model: Model, scans: list[Scan]) -> dict[str, Style]:
    """The prototype of each domain (Eq. 25)."""
    styles = defaultdict(list)
    for scan in track(scans, description="Measuring styles"):
        volume = read_volume(scan.path, modality=scan.modality)
        styles[scan.domain].append(measure_scan(model, volume, null_progress).style)
    return {domain: mean_style(found) for domain, found in styles.items()}


def _sources(scans: list[Scan]) -> tuple[TrainingSource, ...]:
    """One line of the card for each domain."""
    by_domain = {scan.domain: scan for scan in scans}
    counts = Counter(scan.domain for scan in scans)
    return tuple(
        TrainingSource(domain=domain, modality=scan.modality, num_scans=counts[domain], licence=scan.licence)
        for domain, scan in sorted(by_domain.items())
    )


@torch.inference_mode()
def _check_round_trip(model: Model, student: MeDUET) -> None:
    """Whether what was written takes a random latent to where the trained network takes it.

    Raises:
        InputError: it does not; the disk, or the memory, is not to be trusted.
    """
    halved = copy.deepcopy(student).cpu().eval()
    halved.load_state_dict(_halved(student.state_dict()))
    latent = torch.randn(1, *student.config.latent_shape, generator=torch.Generator().manual_seed(0))
    there, here = (network.decode(*network.encode(latent)) for network in (model.meduet, halved))
    if not torch.equal(there, here):
        raise InputError(
            "The model that was written is not the network that was trained; write it again, to another disk."
        )


def _halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Half precision: measured to cost nothing (docs/benchmarks.md)."""
    return {name: tensor.detach().cpu().half() for name, tensor in weights.items()}
