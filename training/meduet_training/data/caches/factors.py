"""Latents and factors of whole scans, computed once for generators (specification, section 9).

One safetensors file for each scan holds mean and log-variance of its standardised latent, and content, style
and fraction of body for every token of the grid that all windows share (M-21). A crop of whole tokens then
needs no encoding, with pooled factors or with spatial content. `sources/factors.py` draws the crops.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from meduet_training.data.cohort.scan import Scan, read_scan, scan_words
from meduet_training.runtime.folders import check_writable, make_folder
from napari_meduet.core.factors import pooled_factor
from napari_meduet.errors import InputError
from napari_meduet.models.model import Model
from napari_meduet.pipelines.common.encoding import coverage_grid, encode_scan, token_grid
from napari_meduet.pipelines.common.progress import null_progress
from napari_meduet.volumes.files import write_atomically

FORMAT = "1"
TENSORS = ("mean", "log_variance", "content", "style", "coverage")


@dataclass(frozen=True, kw_only=True, eq=False)
class FactorEntry:
    """One scan of the cache. Latents and tokens stay on disk until `read` is called.

    Attributes:
        path: the file.
        key: digest of model and scan (`factor_key`).
        domain, modality: as in the manifest.
        patient: digest of the patient.
        grid: tokens along each axis.
        content, style: the pooled factors c0 and s0 of the whole scan.
        coverage: fraction of body in each token.
    """

    path: Path
    key: str
    domain: str
    patient: str
    modality: str
    grid: tuple[int, int, int]
    content: Float[Tensor, " Dc"]
    style: Float[Tensor, " Ds"]
    coverage: Float[Tensor, "X Y Z"]

    def read(self, corner: tuple[int, int, int], size: tuple[int, int, int]) -> dict[str, Tensor]:
        """Return a crop as tensors by name.

        These are `mean` and `log_variance` (C, x, y, z), `content` and `style` (X, Y, Z, D), and `coverage`
        (X, Y, Z).

        Args:
            corner, size: first token and number of tokens along each axis.
        """
        tokens = tuple(slice(start, start + count) for start, count in zip(corner, size, strict=True))
        with safe_open(self.path, framework="pt") as file:
            patch = file.get_slice("mean").get_shape()[1] // self.grid[0]
            voxels = tuple(slice(place.start * patch, place.stop * patch) for place in tokens)
            read = {name: file.get_slice(name) for name in TENSORS}
            crop = {name: read[name][(slice(None), *voxels)] for name in ("mean", "log_variance")}
            crop |= {name: read[name][tokens] for name in ("content", "style", "coverage")}
        return {name: tensor.float() for name, tensor in crop.items()}


@torch.inference_mode()
def write_factor_entry(model: Model, scan: Scan, path: Path) -> None:
    """Encode one scan and write its entry, completely or not at all."""
    encoded = encode_scan(model, read_scan(scan), null_progress)
    tensors = {
        "mean": encoded.latent,
        "log_variance": encoded.log_variance,
        "content": token_grid(encoded, encoded.content, model),
        "style": token_grid(encoded, encoded.style, model),
        "coverage": coverage_grid(encoded, model),
    }
    metadata = {
        "format": FORMAT,
        "model_sha256": model.sha256,
        "domain": scan.domain,
        "patient": hashlib.sha256(scan.patient.encode()).hexdigest()[:16],
        "modality": scan.modality,
    }
    with write_atomically(path, overwrite=True) as temporary:
        save_file({name: tensor.half().contiguous() for name, tensor in tensors.items()}, temporary, metadata)


def open_factor_entry(path: Path, model_sha256: str) -> FactorEntry:
    """Return an entry of the cache.

    Raises:
        InputError: the file is damaged, or was made with another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in ("content", "style", "coverage")}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path.name}: damaged factors; delete the file, so that it is made again."
        ) from error
    if metadata.get("format") != FORMAT or metadata.get("model_sha256") != model_sha256:
        raise InputError(f"{path.name}: these factors were made by another model; make them again.")
    coverage = tensors["coverage"]
    flat = coverage.flatten()
    x, y, z = coverage.shape
    return FactorEntry(
        path=path,
        key=path.stem,
        domain=metadata["domain"],
        patient=metadata["patient"],
        modality=metadata["modality"],
        grid=(x, y, z),
        content=pooled_factor(tensors["content"].flatten(0, 2), flat),
        style=pooled_factor(tensors["style"].flatten(0, 2), flat),
        coverage=coverage,
    )


def cache_factors(
    model: Model,
    scans: list[Scan],
    folder: Path,
    on_scan: Callable[[int, int], None] = lambda number, of: None,
    say: Callable[[str], None] | None = None,
) -> list[FactorEntry]:
    """Return the entries of all scans, in their order; missing entries are made.

    Entries that are damaged, or older than their scan, are made again.

    Args:
        folder: the cache directory.
        on_scan: called before each scan with the number of finished scans and the total.
        say: called with a message for each scan that cannot be encoded; the scan is then left out. None: the
            error of such a scan is raised.

    Raises:
        InputError: no scan can be encoded, or the folder cannot be written.
    """
    make_folder(folder)
    check_writable(folder)
    entries = []
    for number, scan in enumerate(scans):
        on_scan(number, len(scans))
        try:
            path = folder / f"{factor_key(scan, model)}.safetensors"
            entry = _usable_entry(path, scan, model)
            if entry is None:
                write_factor_entry(model, scan, path)
                entry = open_factor_entry(path, model.sha256)
        except (InputError, OSError) as error:
            check_writable(folder)  # a full disk stops the run; it is no fault of the scan
            if say is None:
                raise
            say(f"Scan {number + 1} of {len(scans)} is left out: {error}")
            continue
        entries.append(entry)
    if scans and not entries:
        raise InputError(
            f"None of the {len(scans)} scans can be encoded; the messages above give the reasons."
        )
    return entries


def open_factors(model: Model, scans: list[Scan], folder: Path) -> list[FactorEntry]:
    """Return the entries that exist for these scans. Nothing is written."""
    kept = [_usable_entry(folder / f"{factor_key(scan, model)}.safetensors", scan, model) for scan in scans]
    return [entry for entry in kept if entry is not None]


def _usable_entry(path: Path, scan: Scan, model: Model) -> FactorEntry | None:
    """Return the existing entry, or None if it is missing, outdated or damaged."""
    if not path.is_file() or path.stat().st_mtime < scan.path.stat().st_mtime:
        return None
    try:
        return open_factor_entry(path, model.sha256)
    except InputError:
        return None


def factor_key(scan: Scan, model: Model) -> str:
    """Return the key of a scan's entry for one model."""
    text = f"{FORMAT} {model.sha256} {scan_words(scan)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
