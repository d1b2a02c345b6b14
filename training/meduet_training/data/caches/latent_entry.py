"""One entry of a latent cache: a scan, prepared and encoded, with a record beside its numbers.

The rows of an entry are the mean of the posterior, its log-variance, and the fraction of body in each latent
voxel. Training draws a new latent from mean and variance at each step (specification, C-32). An entry holds
no name and no path; its key is a digest of the source file. `latent_chunks.py` holds the file format.
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
    CHUNK_SIDE,
    ChunkFile,
    CorruptedFile,
    open_chunks,
    save_chunks,
)
from meduet_training.data.caches.latent_spec import LatentSpec
from napari_meduet.core.sliding_windows import Position
from napari_meduet.errors import InputError
from napari_meduet.tokenizers.tiling import encode_posterior_tiled, stride_padding
from napari_meduet.tokenizers.tokenizer import Tokenizer
from napari_meduet.volumes.intensity import body_mask
from napari_meduet.volumes.preparation import WorkingGrid
from napari_meduet.volumes.volume import Volume

WINDOW = 24  # latent voxels along each axis of a crop (M-02); thinner scans are padded, as at inference
IN_BODY = 0.5  # a latent voxel counts in the statistics from this fraction of body on


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """The file that an entry was made from. Size and time show cheaply that it may have changed."""

    sha256: str
    num_bytes: int
    modified_ns: int


@dataclass(frozen=True, kw_only=True)
class ChannelStatistics:
    """Statistics of the latent voxels in the body.

    Attributes:
        count: number of latent voxels.
        mean: mean of each channel.
        variance: variance of each channel. It includes the variance of the posterior, from which training
            draws.
    """

    count: int
    mean: tuple[float, ...]
    variance: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class EntryRecord:
    """The record beside the numbers of an entry.

    Attributes:
        key: the name of the entry (`latent_key`).
        spec_sha256: digest of the cache's `LatentSpec`.
        source: the file of the scan.
        affine: latent voxel index -> RAS mm, four rows.
        spacing_mm: size of a latent voxel along each axis.
        working_shape: voxels of the scan on the working grid.
        before: voxels of padding before the first voxel of each axis, for scans thinner than a window.
        body_percent: percentage of body in each chunk, in the order of the file.
        sums: statistics of the latents in the body.
    """

    key: str
    spec_sha256: str
    source: SourceFile
    affine: tuple[tuple[float, ...], ...]
    spacing_mm: tuple[float, float, float]
    working_shape: Position
    before: Position
    body_percent: tuple[int, ...]
    sums: ChannelStatistics


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentEntry:
    """An entry with its record; its numbers stay on disk until `chunks.read` is called."""

    record: EntryRecord
    chunks: ChunkFile

    @property
    def body(self) -> np.ndarray:
        """(I, J, K), the fraction of body in each chunk."""
        return np.array(self.record.body_percent).reshape(self.chunks.checksums.shape) / 100.0


def latent_key(source_sha256: str, series: str | None, volume_index: int | None) -> str:
    """Return the key of a scan's entry: the same key for the same content, in any folder."""
    return hashlib.sha256(f"{source_sha256} {series} {volume_index}".encode()).hexdigest()[:24]


def open_latent_entry(path: Path, key: str, spec: LatentSpec) -> LatentEntry:
    """Return the entry of this key. Its numbers are checked when they are read.

    Raises:
        CorruptedFile: the file is truncated or changed, belongs to another scan, or was made with another
            specification.
        OSError: the file is missing, or the disk fails.
    """
    chunks = open_chunks(path)
    try:
        fields = json.loads(chunks.record)
        fields["source"] = SourceFile(**fields["source"])
        fields["sums"] = ChannelStatistics(**fields["sums"])
        entry = LatentEntry(record=EntryRecord(**fields), chunks=chunks)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptedFile("it is no entry of a latent cache") from error
    if entry.record.key != key:
        raise CorruptedFile("it is another scan's")
    if entry.record.spec_sha256 != spec.sha256:
        raise CorruptedFile("it was made by another tokenizer, profile, spacing or preparation")
    if chunks.rows != 2 * spec.channels + 1 or min(chunks.shape) < WINDOW:
        raise CorruptedFile("its shape does not fit this tokenizer")
    if len(entry.record.body_percent) != chunks.checksums.size:
        raise CorruptedFile("it is no entry of a latent cache")
    return entry


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedEntry:
    """An entry before it is written.

    Attributes:
        latent: the rows of the entry, in float32.
        record: the fields of `EntryRecord` without key and source.
        num_voxels: voxels of the scan on the working grid.
    """

    latent: Float[Tensor, "R x y z"]
    record: dict[str, Any]
    num_voxels: int


@torch.inference_mode()
def encode_entry(tokenizer: Tokenizer, spec: LatentSpec, volume: Volume) -> EncodedEntry:
    """Prepare a scan, encode it tile by tile, and return its entry.

    Raises:
        InputError: the tokenizer has no profile for the modality, or the scan shows no body.
    """
    values = volume.values()
    profile = spec.profile_for(values, volume.modality)
    grid = WorkingGrid.for_volume(volume, spec.spacing_mm)
    working = np.ascontiguousarray(grid.to_working(values))
    body = torch.from_numpy(body_mask(working, volume.modality))
    if not body.any():
        raise InputError("This scan shows no body; check its modality.")
    units = torch.from_numpy(profile.encode(working))
    missing = [max(0, WINDOW * stride - side) for stride, side in zip(spec.stride, units.shape, strict=True)]
    latent = encode_units(tokenizer, units, body, missing)
    before = tuple(gap // 2 for gap in missing)
    record = {
        "spec_sha256": spec.sha256,
        "affine": _latent_affine(grid.affine, spec.stride, before),
        "spacing_mm": tuple(spec.spacing_mm * stride for stride in spec.stride),
        "working_shape": grid.shape,
        "before": before,
        "body_percent": _body_percent(latent[-1]),
        "sums": asdict(_channel_statistics(latent)),
    }
    return EncodedEntry(latent=latent, record=record, num_voxels=units.numel())


def encode_units(
    tokenizer: Tokenizer, units: Float[Tensor, "X Y Z"], body: Tensor, missing: list[int]
) -> Float[Tensor, "R x y z"]:
    """Return the rows of an entry for a prepared scan.

    Args:
        units: normalised intensity on the working grid.
        body: (X, Y, Z), True inside the patient.
        missing: voxels of padding that make each axis as long as a window; one half of them is put before the
            scan, the other half behind it.

    Raises:
        InputError: the tokenizer wrote numbers that are not finite.
    """
    ends = [amount for gap in reversed(missing) for amount in (gap // 2, gap - gap // 2)]
    padded = F.pad(units[None, None], ends, mode="replicate") if any(ends) else units[None, None]
    mean, log_variance = encode_posterior_tiled(tokenizer, padded)
    to_stride = stride_padding(padded.shape[2:], tokenizer.stride)
    fraction = F.avg_pool3d(F.pad(F.pad(body.float()[None, None], ends), to_stride), tokenizer.stride)
    latent = torch.cat([mean, log_variance, fraction], dim=1)[0]
    if not latent.isfinite().all():
        raise InputError("The tokenizer wrote numbers that are not finite; no entry was written.")
    return latent


def save_latent_entry(path: Path, encoded: EncodedEntry, key: str, source: SourceFile) -> None:
    """Write an entry, completely or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    record = encoded.record | {"key": key, "source": asdict(source)}
    save_chunks(path, encoded.latent, json.dumps(record))


def pooled_statistics(parts: list[ChannelStatistics]) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel over all scans together."""
    counts = np.array([part.count for part in parts], np.float64)[:, None]
    means, variances = (np.array([getattr(part, name) for part in parts]) for name in ("mean", "variance"))
    mean = (counts * means).sum(axis=0) / counts.sum()
    variance = (counts * (variances + (means - mean) ** 2)).sum(axis=0) / counts.sum()
    return mean.tolist(), np.sqrt(variance).tolist()


def _channel_statistics(latent: Float[Tensor, "R x y z"]) -> ChannelStatistics:
    body, channels = latent[-1], (len(latent) - 1) // 2
    inside = body > min(IN_BODY, float(body.max()) / 2)
    rows = latent[:-1, inside].double()  # (2C, N)
    values, posterior_variance = rows[:channels], rows[channels:].exp()
    return ChannelStatistics(
        count=values.shape[1],
        mean=tuple(values.mean(dim=1).tolist()),
        variance=tuple((values.var(dim=1, correction=0) + posterior_variance.mean(dim=1)).tolist()),
    )


def _body_percent(body: Tensor) -> list[int]:
    """Return the percentage of body in each chunk, in the order of the file."""
    ends = [amount for side in reversed(body.shape) for amount in (0, -side % CHUNK_SIDE)]
    within, there = (
        F.avg_pool3d(F.pad(t, ends)[None, None], CHUNK_SIDE) for t in (body, torch.ones_like(body))
    )
    return (100 * within / there).round().int().flatten().tolist()


def _latent_affine(working: np.ndarray, stride: Position, before: tuple[int, ...]) -> list[list[float]]:
    """Return the map from latent voxel index to RAS mm. Each latent voxel is centred on its voxels."""
    scale = np.diag([*stride, 1.0])
    scale[:3, 3] = (np.array(stride) - 1) / 2 - np.array(before)
    return (working @ scale).tolist()
