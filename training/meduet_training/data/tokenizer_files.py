"""Tokenizers that a training left, on disk and by digest.

A training folder holds one file of weights whose metadata say the sizes; a model folder holds its tokenizer
behind a card. Both serve to make latent windows.
"""

import copy
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from napari_meduet.errors import InputError
from napari_meduet.models.card import CARD_FILE, TOKENIZER_FILE
from napari_meduet.models.loading import load_model
from napari_meduet.tokenizers.wavelet import WaveletConfig, WaveletTokenizer
from napari_meduet.volumes.files import write_atomically
from napari_meduet.volumes.intensity import CT_FULL


def save_tokenizer(tokenizer: WaveletTokenizer, folder: Path) -> None:
    """Write the tokenizer into a training folder, whole or not at all."""
    with write_atomically(folder / TOKENIZER_FILE, overwrite=True) as temporary:
        save_file(
            tokenizer.state_dict(), temporary, metadata={"config": json.dumps(asdict(tokenizer.config))}
        )


def load_tokenizer(folder: Path) -> WaveletTokenizer:
    """The tokenizer of a training folder or of a model folder, on the CPU.

    Raises:
        InputError: there is none, it is damaged, or it reads other units than the windows are made in.
    """
    if (folder / CARD_FILE).is_file():
        return _of_model(folder)
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise InputError(
            f"{folder.name}: holds no tokenizer. Give a folder that meduet-train tokenizer wrote, or a model."
        )
    try:
        with safe_open(path, framework="pt") as file:
            config = WaveletConfig(**json.loads(file.metadata()["config"]))
        tokenizer = WaveletTokenizer(config)
        tokenizer.load_state_dict(load_file(path))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{folder.name}/{TOKENIZER_FILE}: damaged, or no tokenizer of meduet-train; train it again."
        ) from error
    return tokenizer.eval()


def tokenizer_sha256(tokenizer: WaveletTokenizer) -> str:
    """Digest of sizes and weights, the latter in half precision: a model folder keeps no more of them."""
    digest = hashlib.sha256(json.dumps(asdict(tokenizer.config), sort_keys=True).encode())
    for name, tensor in sorted(tokenizer.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().half().numpy().tobytes())
    return digest.hexdigest()


def _of_model(folder: Path) -> WaveletTokenizer:
    model = load_model(folder, "cpu")
    profile = model.card.profiles.get("CT")
    if not isinstance(model.tokenizer, WaveletTokenizer) or (profile and profile.knots != CT_FULL.knots):
        raise InputError(
            f"{folder.name}: latent windows are made for the wavelet tokenizer in {CT_FULL.name} units; this "
            f"model has {model.tokenizer.name}{' in ' + profile.name if profile else ''}."
        )
    return copy.deepcopy(model.tokenizer)  # the model itself may be in use elsewhere
