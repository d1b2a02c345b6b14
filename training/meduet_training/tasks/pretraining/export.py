"""Export a trained network as a model folder: card, weights in half precision, and the style of each domain.

`models/saving.py` writes the folder. `inputs.py` stored the tokenizer in the run folder.
"""

import copy
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from rich.progress import track
from torch import Tensor, nn

from meduet_training.data.caches.latent_spec import LatentSpec
from meduet_training.data.cohort.scans import Scan
from meduet_training.engine.resume import TrainedNetwork
from napari_meduet.core.meduet import MeDUET
from napari_meduet.errors import InputError
from napari_meduet.models.card import ModelCard, TrainingSource
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model
from napari_meduet.models.saving import save_model
from napari_meduet.models.styles import Style
from napari_meduet.pipelines.common.progress import null_progress
from napari_meduet.pipelines.common.provenance import commit
from napari_meduet.pipelines.factors import mean_style, measure_scan
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.volumes.files import read_volume


def write_model(
    folder: Path,
    *,
    name: str,
    description: str,
    tokenizer: Tokenizer,
    spec: LatentSpec,
    trained: TrainedNetwork,
    scans: list[Scan],
    training: Mapping[str, Any],
    seeds: Mapping[str, int],
    overwrite: bool,
) -> ModelCard:
    """Write a model folder, load it again, check that the network is unchanged, and return the card.

    Args:
        name, description: for the card.
        tokenizer, spec: what `load_tokenizer` returns for the run folder.
        trained: the network and its settings.
        scans: the training scans; the model then knows the styles of their domains. Without scans it knows no
            style.
        training: how the network was trained, for the card.
        seeds: seeds of the training, for the card.
        overwrite: replace a model that the folder already holds.

    Raises:
        InputError: the folder holds a model, or cannot be written, or holds another network when read again.
    """
    card = ModelCard(
        name=name,
        description=description,
        modalities=tuple(spec.profiles),
        tokenizer=spec.tokenizer_card(trained.settings.latent_mean, trained.settings.latent_std),
        meduet=asdict(trained.student.config),
        profiles=spec.profiles,
        working_spacing_mm=spec.spacing_mm,
        domains=tuple(trained.settings.domains),
        training_data=_sources(scans),
        training=dict(training),
        seeds=dict(seeds),
        commit=commit(),
    )
    weights = _halved(cast(nn.Module, tokenizer).state_dict()), _halved(trained.student.state_dict())
    card = save_model(folder, card, *weights, overwrite=overwrite)
    _check_round_trip(load_model(folder, "cpu"), trained.student)
    if scans:
        styles = known_styles(load_model(folder, "cpu"), scans)
        card = save_model(folder, card, *weights, styles, overwrite=True)
    return card


@torch.inference_mode()
def known_styles(model: Model, scans: list[Scan]) -> dict[str, Style]:
    """Return the style prototype of each domain (Eq. 25)."""
    styles = defaultdict(list)
    for scan in track(scans, description="Measuring styles"):
        volume = read_volume(scan.path, modality=scan.modality)
        styles[scan.domain].append(measure_scan(model, volume, null_progress).style)
    return {domain: mean_style(found) for domain, found in styles.items()}


def _sources(scans: list[Scan]) -> tuple[TrainingSource, ...]:
    """Return one entry of the card for each domain."""
    by_domain = {scan.domain: scan for scan in scans}
    counts = Counter(scan.domain for scan in scans)
    return tuple(
        TrainingSource(domain=domain, modality=scan.modality, num_scans=counts[domain], licence=scan.licence)
        for domain, scan in sorted(by_domain.items())
    )


@torch.inference_mode()
def _check_round_trip(model: Model, student: MeDUET) -> None:
    """Compare the written network with the trained one on a random latent.

    Raises:
        InputError: the results differ, so disk or memory is faulty.
    """
    halved = copy.deepcopy(student).cpu().eval()
    halved.load_state_dict(_halved(student.state_dict()))
    latent = torch.randn(1, *student.config.latent_shape, generator=torch.Generator().manual_seed(0))
    there, here = (network.decode(*network.encode(latent)) for network in (model.meduet, halved))
    if not torch.equal(there, here):
        raise InputError(
            "The written model differs from the trained network, so the disk or the memory is faulty. Write "
            "the model again to another disk."
        )


def _halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in half precision, which costs no accuracy (docs/benchmarks.md)."""
    return {name: tensor.detach().cpu().half() for name, tensor in weights.items()}
