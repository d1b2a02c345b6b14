"""The network of a factor analysis: from a run, from one of its checkpoints, or from an exported model."""

from dataclasses import asdict
from pathlib import Path
from typing import cast

from torch import nn

from meduet_training.data.tokenizer_files import load_tokenizer
from meduet_training.engine.checkpoints import FOLDER, load_checkpoint
from meduet_training.engine.resume import TrainedNetwork, load_trained, trained_in
from meduet_training.evaluation.factors.validation import weights_sha256
from napari_meduet.core.standardisation import LatentStandardisation
from napari_meduet.errors import InputError
from napari_meduet.models.card import CARD_FILE, ModelCard
from napari_meduet.models.devices import choose_device
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model
from napari_meduet.tokenizers.tokenizer import Tokenizer


def open_extractor(path: Path, device: str) -> Model:
    """Load a network with its tokenizer and standardisation.

    Args:
        path: a model folder; the folder of a run, for its newest complete checkpoint; or a checkpoint of a
            run.
        device: auto, cpu or cuda.

    Raises:
        InputError: the path is none of these, or a file is damaged.
    """
    if (path / CARD_FILE).is_file():
        return load_model(path, device)
    if (path / FOLDER).is_dir():
        return _model_of(load_trained(path), path, device)
    if path.is_file() and path.parent.name == FOLDER:
        run = path.parent.parent
        return _model_of(trained_in(load_checkpoint(path)), run, device)
    raise InputError(
        f"{path.name}: this is neither a model nor a run nor a checkpoint of a run. Give a folder with "
        f"{CARD_FILE}, a folder with {FOLDER}, or a file in {FOLDER}."
    )


def _model_of(trained: TrainedNetwork, run: Path, device: str) -> Model:
    """Return the model that an export of the network would give, in full precision."""
    target = choose_device(device)
    tokenizer, spec = load_tokenizer(run)
    mean, std = trained.settings.latent_mean, trained.settings.latent_std
    card = ModelCard(
        name=run.name,
        description=f"After {trained.step} steps.",
        modalities=tuple(spec.profiles),
        tokenizer=spec.tokenizer_card(mean, std),
        meduet=asdict(trained.student.config),
        profiles=spec.profiles,
        working_spacing_mm=spec.spacing_mm,
        domains=tuple(trained.settings.domains),
    )
    return Model(
        card=card,
        sha256=weights_sha256(trained.student),
        device=target,
        tokenizer=cast(Tokenizer, cast(nn.Module, tokenizer).to(target)),
        meduet=trained.student.requires_grad_(False).to(target),
        latents=LatentStandardisation.of_channels(mean, std),
    )
