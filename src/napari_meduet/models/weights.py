"""Weight files of a model folder: safetensors, checked against the model card before they are opened.

Every file is read once and compared with the size and the digest on the card. Nothing is unpickled. Weight
files that users bring, such as MAISI's, are read by `tokenizers/weight_files.py`.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from napari_meduet.errors import InputError
from napari_meduet.models.card import WeightFile


def packed(weights: Mapping[str, Tensor]) -> bytes:
    """Return a state dict as the bytes of a safetensors file."""
    return save({name: tensor.contiguous() for name, tensor in weights.items()})


def packed_half(weights: Mapping[str, Tensor]) -> bytes:
    """Return a state dict, rounded to half precision, as the bytes of a safetensors file."""
    return packed({name: tensor.half() for name, tensor in weights.items()})


def weight_file(content: bytes) -> WeightFile:
    """Return the digest and the size of a file, as the model card stores them."""
    return WeightFile(sha256=hashlib.sha256(content).hexdigest(), num_bytes=len(content))


def weight_shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Return the shape of each tensor of a state dict, by name."""
    return {name: tensor.shape for name, tensor in weights.items()}


def checked_bytes(folder: Path, name: str, expected: WeightFile) -> bytes:
    """Return the bytes of a weight file after comparing size and digest with the card.

    Raises:
        InputError: the file is missing, or differs from the card.
    """
    path = folder / name
    if not path.is_file():
        raise InputError(
            f"{folder.name}/{name}: the file is missing; the model is incomplete. Fetch it again."
        )
    if path.stat().st_size != expected.num_bytes:
        raise InputError(
            f"{folder.name}/{name}: the file has {path.stat().st_size} bytes instead of "
            f"{expected.num_bytes}. It was cut short or replaced; fetch the model again."
        )
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != expected.sha256:
        raise InputError(
            f"{folder.name}/{name}: the sha256 differs from the one on the card. The file was damaged or "
            "replaced; fetch the model again."
        )
    return content


def fill_network(network: nn.Module, content: bytes, file_name: str) -> None:
    """Load checked bytes into a network, in float32.

    Args:
        file_name: the name of the file in error messages.

    Raises:
        InputError: the bytes are no safetensors file, or hold the weights of another network.
    """
    try:
        weights = load(content)
        network.load_state_dict({name: weight.float() for name, weight in weights.items()})
    except (SafetensorError, RuntimeError) as error:
        difference = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{file_name}: not the weights that the card describes: {difference}") from error
