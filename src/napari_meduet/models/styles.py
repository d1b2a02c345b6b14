"""Styles on disk: the appearance of scans of one scanner or site, without any image (Eq. 25).

A style holds mean and standard deviation of style tokens, and the energies of the texture bands that latents
do not carry: a few kB that a hospital can share (specification, sections 7-8). A style is valid only for the
model that made it, so it stores the digest of that model. `pipelines/factors.py` makes styles from scans.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from napari_meduet.core.factors import StyleStatistics
from napari_meduet.core.texture import BAND_EDGES_MM, BandEnergies
from napari_meduet.errors import InputError
from napari_meduet.models.card import Modality
from napari_meduet.volumes.safe_open import open_regular, shown_name

STYLE_SUFFIX = ".style"
FORMAT = "napari-meduet style 1"
LARGEST_STYLE_BYTES = 16 * 1024**2


@dataclass(frozen=True, kw_only=True, eq=False)
class Style:
    """The style of one scan, or of several scans of one site.

    Attributes:
        statistics: mean s0 and standard deviation of the style tokens, each (Ds,).
        spread: root-mean-square distance between the mean style of each sub-volume and s0.
        texture: energies of the texture bands that the model cannot decode, with the pixel size.
        modality: CT or MR.
        num_scans: number of scans that it was made from.
        model_sha256: identity of the model that made it.
        working_spacing_mm: voxel size of the grid on which the scans were encoded.
    """

    statistics: StyleStatistics
    spread: float
    texture: BandEnergies
    modality: Modality
    num_scans: int
    model_sha256: str
    working_spacing_mm: float

    def check_model(self, model_sha256: str, name: str) -> None:
        """Check that a model made this style.

        Raises:
            InputError: another model made it.
        """
        if self.model_sha256 != model_sha256:
            raise InputError(
                f"{name}: this style was made by another model ({self.model_sha256[:8]}, not "
                f"{model_sha256[:8]}). Make the style again from its scans, or choose that model."
            )


def load_style(path: Path) -> Style:
    """Return the style in a `.style` file.

    Raises:
        InputError: the file is missing or damaged, or holds no style.

    Examples:
        >>> style = load_style(Path("site-a.style"))
        >>> style.modality, style.num_scans
        ('CT', 12)
    """
    name = shown_name(path)
    with open_regular(path) as file:
        content = file.read(LARGEST_STYLE_BYTES + 1)
    if len(content) > LARGEST_STYLE_BYTES:
        raise InputError(f"{name}: larger than 16 MiB, which is too large for a style.")
    styles = unpack_styles(content, name)
    if list(styles) != ["style"]:
        raise InputError(f"{name}: a {STYLE_SUFFIX} file holds one style; this one holds {len(styles)}.")
    return styles["style"]


def pack_styles(styles: Mapping[str, Style], provenance: Mapping[str, Any] | None = None) -> bytes:
    """Return named styles as the bytes of one safetensors file."""
    tensors: dict[str, np.ndarray] = {}
    records: dict[str, dict[str, Any]] = {}
    for name, style in styles.items():
        tensors[f"{name}/mean"] = style.statistics.mean.float().cpu().numpy()
        tensors[f"{name}/std"] = style.statistics.std.float().cpu().numpy()
        records[name] = {
            "spread": style.spread,
            "texture": {
                "deviations": style.texture.deviations,
                "bands_mm": BAND_EDGES_MM,
                "pixel_mm": style.texture.pixel_mm,
            },
            "modality": style.modality,
            "num_scans": style.num_scans,
            "model_sha256": style.model_sha256,
            "working_spacing_mm": style.working_spacing_mm,
        }
    metadata = {"format": FORMAT, "styles": json.dumps(records)}
    if provenance is not None:
        metadata["provenance"] = json.dumps(provenance)
    return save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, metadata)


def unpack_styles(content: bytes, file_name: str) -> dict[str, Style]:
    """Return the styles in the bytes of a safetensors file, by name.

    Args:
        file_name: the name of the file in error messages.

    Raises:
        InputError: the bytes hold no styles, or numbers that are not finite.
    """
    damaged = InputError(f"{file_name}: not a style file, or damaged. Copy it again, or make it again.")
    try:
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        if metadata["format"] != FORMAT:
            raise InputError(
                f"{file_name}: written by another version of napari-meduet: {metadata['format']!r}."
            )
        records = json.loads(metadata["styles"])
        if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
            raise damaged
        return {name: _style(tensors, name, record) for name, record in records.items()}
    except InputError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise damaged from error


def _style(tensors: Mapping[str, np.ndarray], name: str, record: Mapping[str, Any]) -> Style:
    mean, std = (torch.from_numpy(tensors[f"{name}/{part}"].copy()) for part in ("mean", "std"))
    texture, deviations = record["texture"], tuple(record["texture"]["deviations"])
    if mean.ndim != 1 or mean.shape != std.shape or len(deviations) not in (0, len(BAND_EDGES_MM)):
        raise ValueError("mean and std must be vectors of equal length, with one energy for each band")
    if tuple(texture["bands_mm"]) != BAND_EDGES_MM:
        raise ValueError("the bands must be those of this version")
    if not all(math.isfinite(number) for number in (*deviations, texture["pixel_mm"], record["spread"])):
        raise ValueError("every number must be finite")
    return Style(
        statistics=StyleStatistics(mean=mean, std=std),
        spread=record["spread"],
        texture=BandEnergies(deviations, texture["pixel_mm"]),
        modality=record["modality"],
        num_scans=record["num_scans"],
        model_sha256=record["model_sha256"],
        working_spacing_mm=record["working_spacing_mm"],
    )
