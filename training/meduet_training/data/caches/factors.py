"""Latents and factors of whole scans, computed once for a generator (specification, section 9).

One safetensors file a scan: mean and log-variance of its latent, standardised, and on the one grid of tokens
that all its windows lie on the content and style of every place and its share of body (M-21). A crop of the
latent along tokens then has its factors ready, pooled or place by place.
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
    """One scan of the cache; tensors stay on the disk until a part of them is asked for.

    Attributes:
        grid: tokens along each axis.
        content, style: c0 and s0 of the whole scan.
        coverage: (X, Y, Z), the share of body in each token.
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
        """A crop: `mean`, `log_variance` (C, x, y, z); `content`, `style` (X, Y, Z, D), `coverage` (X, Y, Z).

        Args:
            corner, size: in tokens.
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
def make_entry(model: Model, scan: Scan, path: Path) -> None:
    """Encode one scan and write its entry, whole or not at all."""
    encoded = encode_scan(model, read_scan(scan), null_progress)
    tensors = {
        "mean": encoded.latent,
        "log_variance": encoded.log_variance,
        "content": token_grid(encoded, encoded.content, model),
        "style": token_grid(encoded, encoded.style, model),
        "coverage": coverage_grid(encoded, model),
    }
    words = {
        "format": FORMAT,
        "model_sha256": model.sha256,
        "domain": scan.domain,
        "patient": hashlib.sha256(scan.patient.encode()).hexdigest()[:16],
        "modality": scan.modality,
    }
    with write_atomically(path, overwrite=True) as temporary:
        save_file({name: tensor.half().contiguous() for name, tensor in tensors.items()}, temporary, words)


def open_entry(path: Path, model_sha256: str) -> FactorEntry:
    """An entry of the cache.

    Raises:
        InputError: it is damaged, or was made with another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            words = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in ("content", "style", "coverage")}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path.name}: damaged factors; delete the file and make it again.") from error
    if words.get("format") != FORMAT or words.get("model_sha256") != model_sha256:
        raise InputError(f"{path.name}: these factors are of another model; make them again.")
    coverage = tensors["coverage"]
    flat = coverage.flatten()
    x, y, z = coverage.shape
    return FactorEntry(
        path=path,
        key=path.stem,
        domain=words["domain"],
        patient=words["patient"],
        modality=words["modality"],
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
    """Entries of all scans, in their order; what is in the folder already is kept.

    An entry that is damaged, or older than its scan, is made again.

    Args:
        on_scan: is told, before each, how many are done of how many.
        say: hears of each scan that cannot be encoded, and is left out; None: such a scan is raised.

    Raises:
        InputError: none can be encoded, or the folder cannot be written.
    """
    make_folder(folder)
    check_writable(folder)
    entries = []
    for number, scan in enumerate(scans):
        on_scan(number, len(scans))
        try:
            path = folder / f"{entry_key(scan, model)}.safetensors"
            entry = _kept(path, scan, model)
            if entry is None:
                make_entry(model, scan, path)
                entry = open_entry(path, model.sha256)
        except (InputError, OSError) as error:
            check_writable(folder)  # a full disk is no scan's fault
            if say is None:
                raise
            say(f"Scan {number + 1} of {len(scans)} is left out: {error}")
            continue
        entries.append(entry)
    if scans and not entries:
        raise InputError(f"None of the {len(scans)} scans can be encoded; see above why.")
    return entries


def open_factors(model: Model, scans: list[Scan], folder: Path) -> list[FactorEntry]:
    """The entries that `cache_factors` has made of these scans; nothing is written."""
    kept = [_kept(folder / f"{entry_key(scan, model)}.safetensors", scan, model) for scan in scans]
    return [entry for entry in kept if entry is not None]


def _kept(path: Path, scan: Scan, model: Model) -> FactorEntry | None:
    """The entry that is there; None where there is none that can be used."""
    if not path.is_file() or path.stat().st_mtime < scan.path.stat().st_mtime:
        return None
    try:
        return open_entry(path, model.sha256)
    except InputError:
        return None


def entry_key(scan: Scan, model: Model) -> str:
    """The `key` of the entry of a scan: tells one scan, seen by one model, from another."""
    text = f"{FORMAT} {model.sha256} {scan_words(scan)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
