"""Read weight files that a user supplies: safetensors, or the published `.pt` and `.pth` files.

This is the only file that opens torch's own format. It loads tensors only; files that contain code are
refused. The caller checks which network the weights belong to.
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
    """Return the tensors of a weight file, by name. Nothing in the file is executed.

    Args:
        nested_under: the key that holds the weights in some published files. A file without this key is
            returned as it is.

    Raises:
        InputError: the file is missing, damaged or too large, or holds more than tensors.
    """
    if not path.is_file():
        raise InputError(f"{path.name}: there is no such weight file. Give a .safetensors or .pt file.")
    if path.stat().st_size > LARGEST_FILE_BYTES:
        raise InputError(f"{path.name}: larger than 2 GiB. The weights of a tokenizer are smaller.")
    if path.suffix == ".safetensors":
        weights = _read_safetensors(path)
    elif path.suffix in {".pt", ".pth"}:
        weights = _read_pt(path)
    else:
        raise InputError(f"{path.name}: weights come as .safetensors, .pt or .pth files.")
    weights = weights.get(nested_under, weights)
    is_named = isinstance(weights, dict) and all(isinstance(weight, Tensor) for weight in weights.values())
    if not weights or not is_named:
        raise InputError(
            f"{path.name}: this file holds more than named tensors. Give only the network's weights."
        )
    return weights


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path.name}: damaged, or no .safetensors file. Download it again.") from error


def _read_pt(path: Path) -> dict[str, Any]:
    """Return the dictionary in a .pt file. No other function opens such files."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many different errors for damage and code
        raise InputError(f"{path.name}: damaged, or holds more than tensors; it was not opened.") from error
    return content if isinstance(content, dict) else {}
