"""Weight files that people bring, as named tensors: safetensors, or the published `.pt` and `.pth`.

This is the one place that opens a file of torch's own format, and it reads tensors alone: what would run code
is refused. Whose weights they are is the caller's business.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from napari_meduet.errors import InputError

LARGEST_FILE_BYTES = 2 * 1024**3


def read_tensors(path: Path, nested_under: str) -> dict[str, Tensor]:
    """The tensors of a weight file by name. Nothing in the file is executed.

    Args:
        nested_under: the name under which some publish the weights; without it the file is taken as it is.

    Raises:
        InputError: there is no such file, it is damaged, or holds more than tensors.
    """
    if not path.is_file():
        raise InputError(f"{path.name}: there is no such weight file. Give a .safetensors or .pt file.")
    if path.stat().st_size > LARGEST_FILE_BYTES:
        raise InputError(f"{path.name}: larger than 2 GiB, which the weights that are read here are not.")
    if path.suffix == ".safetensors":
        weights = _read_safetensors(path)
    elif path.suffix in {".pt", ".pth"}:
        weights = _read_pt(path)
    else:
        raise InputError(f"{path.name}: weights come as .safetensors or .pt files.")
    weights = weights.get(nested_under, weights)
    is_named = isinstance(weights, dict) and all(isinstance(weight, Tensor) for weight in weights.values())
    if not weights or not is_named:
        raise InputError(
            f"{path.name}: this file holds more than named tensors. Give the network's weights alone."
        )
    return weights


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path.name}: damaged, or no .safetensors file. Fetch it again.") from error


def _read_pt(path: Path) -> dict[str, Any]:
    """What a .pt file holds. No other function opens one."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the damage leads to, and refuses code in many ways
        raise InputError(f"{path.name}: damaged, or holds more than tensors; it was not opened.") from error
    return content if isinstance(content, dict) else {}
