"""One scan's entry in a latent cache: prepared, encoded, and described beside its numbers.

The rows of an entry are the posterior's mean, its log-variance (C-32: a training draws a fresh latent each
time) and the share of body in each latent voxel. Nothing in it says whose scan it was: the entry goes by a
digest of the file that it was made from.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from meduet_training.data.caches.latent_chunks import (
    EDGE,
    ChunkFile,
    CorruptedFile,
    Place,
    open_chunks,
    save_chunks,
)
from meduet_training.data.caches.latent_spec import LatentSpec
from napari_meduet.errors import InputError
from napari_meduet.tokenizers.tiling import encode_posterior_tiled, stride_padding
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.volumes.intensity import body_mask
from napari_meduet.volumes.preparation import WorkingGrid
from napari_meduet.volumes.volume import Volume

WINDOW = 24  # latent voxels along a crop (M-02); thinner scans are continued to it, as at inference
IN_BODY = 0.5  # share of body from which a latent voxel counts in the statistics


@dataclass(frozen=True, kw_only=True)
class Source:
    """The file that an entry was made from. Size and time tell cheaply that it may have changed."""

    sha256: str
    num_bytes: int
    modified_ns: int


@dataclass(frozen=True, kw_only=True)
class ChannelSums:
    """Of the latents in the body, per channel: so many of them, their mean, and their variance."""

    count: int
    mean: tuple[float, ...]
    variance: tuple[float, ...]  # with the posterior's own, which training draws from


@dataclass(frozen=True, kw_only=True)
class EntryWords:
    """What is known of an entry without its numbers.

    Attributes:
        key: the name it goes by.
        affine: latent voxel index -> RAS mm, four rows.
        working_shape: of the scan on the working grid, in voxels.
        before: voxels of the working grid that were put before its first, where the scan was too thin.
        body_percent: of each cube of the file, in its order.
    """

    key: str
    spec_sha256: str
    source: Source
    affine: tuple[tuple[float, ...], ...]
    spacing_mm: tuple[float, float, float]  # of the latent's voxels
    working_shape: Place
    before: Place
    body_percent: tuple[int, ...]
    sums: ChannelSums


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """An entry whose words were read, and whose numbers can be."""

    words: EntryWords
    cubes: ChunkFile

    @property
    def body(self) -> np.ndarray:
        """(I, J, K), the share of body in each cube."""
        return np.array(self.words.body_percent).reshape(self.cubes.checksums.shape) / 100.0


def entry_key(source_sha256: str, series: str | None, volume_index: int | None) -> str:
    """The name of a scan's entry: the same for the same content, wherever its file lies."""
    return hashlib.sha256(f"{source_sha256} {series} {volume_index}".encode()).hexdigest()[:24]


def open_entry(path: Path, key: str, spec: LatentSpec) -> Entry:
    """The entry of that key; its numbers are checked when they are read.

    Raises:
        Damaged: it is cut off or changed, another scan's, or was made by another tokenizer or preparation.
        OSError: it is gone, or the disk fails.
    """
    cubes = open_chunks(path)
    try:
        words = json.loads(cubes.words)
        words["source"], words["sums"] = Source(**words["source"]), ChannelSums(**words["sums"])
        entry = Entry(words=EntryWords(**words), cubes=cubes)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptedFile("it is no entry of a latent cache") from error
    if entry.words.key != key:
        raise CorruptedFile("it is another scan's")
    if entry.words.spec_sha256 != spec.sha256:
        raise CorruptedFile("it was made by another tokenizer, profile, spacing or preparation")
    if cubes.rows != 2 * spec.channels + 1 or min(cubes.shape) < WINDOW:
        raise CorruptedFile("its shape is no latent's of this tokenizer")
    if len(entry.words.body_percent) != cubes.checksums.size:
        raise CorruptedFile("it is no entry of a latent cache")
    return entry


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedScan:
    """A scan's latent before it is written, and what belongs beside it.

    Attributes:
        latent: rows as in an entry, in float32.
        words: of the entry, but for key and source.
        num_voxels: of the scan on the working grid.
    """

    latent: Float[Tensor, "R x y z"]
    words: dict[str, Any]
    num_voxels: int


@torch.inference_mode()
def encode_scan(tokenizer: Tokenizer, spec: LatentSpec, volume: Volume) -> EncodedScan:
    """Prepare a scan and encode it, tile by tile.

    Raises:
        InputError: the tokenizer does not know the modality, or the scan shows nothing.
    """
    values = volume.values()
    profile = spec.profile_for(values, volume.modality)
    grid = WorkingGrid.for_volume(volume, spec.spacing_mm)
    working = np.ascontiguousarray(grid.to_working(values))
    body = torch.from_numpy(body_mask(working, volume.modality))
    if not body.any():
        raise InputError("No body is seen in this scan; check its modality.")
    units = torch.from_numpy(profile.encode(working))
    missing = [max(0, WINDOW * stride - side) for stride, side in zip(spec.stride, units.shape, strict=True)]
    latent = encode_units(tokenizer, units, body, missing)
    before = tuple(gap // 2 for gap in missing)
    words = {
        "spec_sha256": spec.sha256,
        "affine": _latent_affine(grid.affine, spec.stride, before),
        "spacing_mm": tuple(spec.spacing_mm * stride for stride in spec.stride),
        "working_shape": grid.shape,
        "before": before,
        "body_percent": _body_percent(latent[-1]),
        "sums": asdict(_sums(latent)),
    }
    return EncodedScan(latent=latent, words=words, num_voxels=units.numel())


def encode_units(
    tokenizer: Tokenizer, units: Float[Tensor, "X Y Z"], body: Tensor, missing: list[int]
) -> Float[Tensor, "R x y z"]:
    """The rows of an entry for a prepared scan.

    Args:
        body: (X, Y, Z), True where the patient is.
        missing: voxels that each axis lacks to a window; half go before, half behind.
    """
    ends = [amount for gap in reversed(missing) for amount in (gap // 2, gap - gap // 2)]
    padded = F.pad(units[None, None], ends, mode="replicate") if any(ends) else units[None, None]
    mean, log_variance = encode_posterior_tiled(tokenizer, padded)
    to_stride = stride_padding(padded.shape[2:], tokenizer.stride)
    share = F.avg_pool3d(F.pad(F.pad(body.float()[None, None], ends), to_stride), tokenizer.stride)
    latent = torch.cat([mean, log_variance, share], dim=1)[0]
    if not latent.isfinite().all():
        raise InputError("The tokenizer wrote numbers that are not finite; nothing was kept of this scan.")
    return latent


def save_entry(path: Path, encoded: EncodedScan, key: str, source: Source) -> None:
    """Write an entry, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    words = encoded.words | {"key": key, "source": asdict(source)}
    save_chunks(path, encoded.latent, json.dumps(words))


def pooled_statistics(parts: list[ChannelSums]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over all parts together."""
    counts = np.array([part.count for part in parts], np.float64)[:, None]
    means, variances = (np.array([getattr(part, name) for part in parts]) for name in ("mean", "variance"))
    mean = (counts * means).sum(axis=0) / counts.sum()
    variance = (counts * (variances + (means - mean) ** 2)).sum(axis=0) / counts.sum()
    return mean.tolist(), np.sqrt(variance).tolist()


def _sums(latent: Float[Tensor, "R x y z"]) -> ChannelSums:
    body, channels = latent[-1], (len(latent) - 1) // 2
    inside = body > min(IN_BODY, float(body.max()) / 2)
    rows = latent[:-1, inside].double()  # (2C, N)
    values, own = rows[:channels], rows[channels:].exp()
    return ChannelSums(
        count=values.shape[1],
        mean=tuple(values.mean(dim=1).tolist()),
        variance=tuple((values.var(dim=1, correction=0) + own.mean(dim=1)).tolist()),
    )


def _body_percent(body: Tensor) -> list[int]:
    ends = [amount for side in reversed(body.shape) for amount in (0, -side % EDGE)]
    within, there = (F.avg_pool3d(F.pad(t, ends)[None, None], EDGE) for t in (body, torch.ones_like(body)))
    return (100 * within / there).round().int().flatten().tolist()


def _latent_affine(working: np.ndarray, stride: Place, before: tuple[int, ...]) -> list[list[float]]:
    """Return the map from latent voxel index to RAS mm. Latent voxels are centred on their voxels."""
    scale = np.diag([*stride, 1.0])
    scale[:3, 3] = (np.array(stride) - 1) / 2 - np.array(before)
    return (working @ scale).tolist()
