"""Load any tokenizer together with the specification of its latents, and save one.

A tokenizer comes from a folder of `meduet-train tokenizer` or of a run, from a model folder, or from a file
of published weights, such as MAISI's. The training code calls `load_tokenizer` for all of them and never
names a kind of tokenizer. `napari_meduet/tokenizers/registry.py` lists the kinds.
"""

import copy
import json
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from meduet_training.data.caches.latent_spec import LatentSpec, profile_card, spec_of
from napari_meduet.errors import InputError
from napari_meduet.models.card import CARD_FILE, TOKENIZER_FILE, ProfileCard
from napari_meduet.models.loading import load_model
from napari_meduet.tokenizers.registry import TOKENIZERS, build_tokenizer
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.volumes.files import write_atomically

DESCRIPTION = "tokenizer"  # key of the file's metadata; its value is JSON


def load_tokenizer(path: Path, ct_profile: str | None = None) -> tuple[Tokenizer, LatentSpec]:
    """Return a tokenizer on the CPU, and the specification of its latents.

    Args:
        path: a folder of `meduet-train tokenizer` or `meduet-pretrain run`, a model folder, or a file of
            weights (.safetensors, .pt or .pth) such as MAISI's.
        ct_profile: name of another intensity profile for CT than the tokenizer's own.

    Raises:
        InputError: there is no tokenizer, it is damaged, or there is no such profile.

    Examples:
        >>> tokenizer, spec = load_tokenizer(Path("autoencoder_v1.pt"))
        >>> spec.tokenizer, spec.stride, spec.profiles["CT"].name
        ('maisi', (4, 4, 4), 'ct-wide')
    """
    if not path.exists():
        raise InputError(
            f"{path.name}: there is no such tokenizer. Give a folder of meduet-train tokenizer, a model "
            "folder, or a file of MAISI weights."
        )
    if (path / CARD_FILE).is_file():
        tokenizer, spec = _from_model(path)
    elif path.is_dir():
        tokenizer, spec = _from_folder(path)
    else:
        tokenizer, spec = _from_file(path)
    return tokenizer, spec if ct_profile is None else spec.with_ct_profile(profile_card(ct_profile))


def save_tokenizer(tokenizer: Tokenizer, folder: Path, spec: LatentSpec | None = None) -> None:
    """Write `tokenizer.safetensors` into a folder, completely or not at all.

    Args:
        spec: the specification of its latents; by default that of the tokenizer registry.

    Raises:
        InputError: the file cannot be written.
    """
    spec = spec or spec_of(tokenizer)
    description = {
        "name": spec.tokenizer,
        "config": spec.tokenizer_config,
        "profiles": {modality: profile.model_dump() for modality, profile in spec.profiles.items()},
        "spacing_mm": spec.spacing_mm,
    }
    weights = {name: tensor.contiguous() for name, tensor in cast(nn.Module, tokenizer).state_dict().items()}
    with write_atomically(folder / TOKENIZER_FILE, overwrite=True) as temporary:
        save_file(weights, temporary, metadata={DESCRIPTION: json.dumps(description)})


def _from_model(folder: Path) -> tuple[Tokenizer, LatentSpec]:
    model = load_model(folder, "cpu")
    tokenizer = copy.deepcopy(model.tokenizer)  # load_model shares its networks between callers
    return tokenizer, spec_of(tokenizer, model.card.profiles, model.card.working_spacing_mm)


def _from_folder(folder: Path) -> tuple[Tokenizer, LatentSpec]:
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise InputError(
            f"{folder.name}: holds no tokenizer. Give a folder that meduet-train tokenizer wrote, or a model."
        )
    damaged = f"{folder.name}/{TOKENIZER_FILE}: damaged, or no tokenizer of meduet-train; train it again."
    description = _description(path)
    if description is None:
        raise InputError(damaged)
    return _described(path, description, damaged)


def _from_file(path: Path) -> tuple[Tokenizer, LatentSpec]:
    """Read our own format, or else the format of the publisher of a tokenizer's weights."""
    description = _description(path)
    if description is not None:
        return _described(path, description, f"{path.name}: damaged, or no tokenizer of this version.")
    (read_published,) = [row.from_file for row in TOKENIZERS.values() if row.from_file is not None]
    tokenizer = cast(Tokenizer, read_published(path))
    return tokenizer, spec_of(tokenizer)


def _description(path: Path) -> dict[str, Any] | None:
    """Return what `save_tokenizer` stored in a file beside the weights, or None in other files."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return json.loads(metadata[DESCRIPTION]) if DESCRIPTION in metadata else None
    except (SafetensorError, ValueError, OSError):
        return None


def _described(path: Path, description: dict[str, Any], damaged: str) -> tuple[Tokenizer, LatentSpec]:
    try:
        network = build_tokenizer(description["name"], description["config"])
        network.load_state_dict(load_file(path))
        profiles: Any = {
            modality: ProfileCard.model_validate(profile)
            for modality, profile in description["profiles"].items()
        }
        tokenizer = cast(Tokenizer, network.eval())
        return tokenizer, spec_of(tokenizer, profiles, float(description["spacing_mm"]))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(damaged) from error
