"""A network whose factors are analysed: that of a run, of one of its checkpoints, or of an exported model."""

from dataclasses import asdict
from pathlib import Path

import torch

from meduet_training.data.tokenizer_files import load_tokenizer
from meduet_training.engine.checkpoints import FOLDER, load_checkpoint
from meduet_training.engine.resume import TrainedNetwork, load_trained, trained_in
from meduet_training.evaluation.factors.validation import weights_sha256
from napari_meduet.core.standardisation import LatentStandardisation
from napari_meduet.errors import InputError
from napari_meduet.models.card import CARD_FILE, ModelCard, ProfileCard, TokenizerCard
from napari_meduet.models.devices import choose_device
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model
from napari_meduet.tokenizers.wavelet import WaveletTokenizer
from napari_meduet.volumes.intensity import CT_FULL
from napari_meduet.volumes.preparation import WORKING_SPACING_MM


def open_extractor(path: Path, device: str) -> Model:
    """The network with its tokenizer and standardisation.

    Args:
        path: a model folder; the folder of a run, for its newest whole checkpoint; or one checkpoint in it.

    Raises:
        InputError: it is none of these, or damaged.
    """
    if (path / CARD_FILE).is_file():
        return load_model(path, device)
    if (path / FOLDER).is_dir():
        return _model_of(load_trained(path), path, device)
    if path.is_file() and path.parent.name == FOLDER:
        run = path.parent.parent
        return _model_of(trained_in(load_checkpoint(path)), run, device)
    raise InputError(
        f"{path.name}: is no model, no run and no checkpoint of a run; give a folder with {CARD_FILE}, a "
        f"folder with {FOLDER}, or a file in it."
    )


def _model_of(trained: TrainedNetwork, run: Path, device: str) -> Model:
    """What `load_model` would give if the network were exported, in full precision."""
    target = choose_device(device)
    tokenizer: WaveletTokenizer = load_tokenizer(run)
    mean, std = trained.settings.latent_mean, trained.settings.latent_std
    card = ModelCard(
        name=run.name,
        description=f"After {trained.step} steps.",
        modalities=("CT", "MR"),
        tokenizer=TokenizerCard(
            name=tokenizer.name,
            config=asdict(tokenizer.config),
            latent_mean=tuple(mean),
            latent_std=tuple(std),
        ),
        meduet=asdict(trained.student.config),
        profiles={"CT": ProfileCard(name=CT_FULL.name, knots=CT_FULL.knots), "MR": ProfileCard(name="mr")},
        working_spacing_mm=WORKING_SPACING_MM,
        domains=tuple(trained.settings.domains),
    )
    return Model(
        card=card,
        sha256=weights_sha256(trained.student),
        device=target,
        tokenizer=tokenizer.to(target),
        meduet=trained.student.requires_grad_(False).to(target),
        latents=LatentStandardisation.of_channels(mean, std),
    )
