"""The conditions of a synthesis: content, style and start scan (specification, section 9).

The content of every place fixes the anatomy, and with it the place in the patient; a pooled content fixes
neither. How a generator is conditioned on them is `core/synthesis`'s business, how it is walked
`sampling.py`'s.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from napari_meduet.core.factors import pooled_factor
from napari_meduet.core.sliding_windows import Position, cut_window
from napari_meduet.errors import InputError, OnProgress
from napari_meduet.models.card import STYLES_FILE, Modality
from napari_meduet.models.model import Model
from napari_meduet.models.styles import STYLE_SUFFIX, Style, load_style
from napari_meduet.pipelines.common.encoding import EncodedScan, coverage_grid, encode_scan, token_grid
from napari_meduet.pipelines.common.labels import class_shares, labels_on
from napari_meduet.pipelines.common.memory import check_memory
from napari_meduet.pipelines.factors import doubts_about, read_scan
from napari_meduet.pipelines.requests import Scan, ScanChoice
from napari_meduet.volumes.files import file_sha256
from napari_meduet.volumes.intensity import IntensityProfile
from napari_meduet.volumes.safe_open import shown_name
from napari_meduet.volumes.volume import Volume

MR_WITHOUT_A_SCAN = IntensityProfile("mr", ((0.0, 0.0), (1000.0, 1.0)))  # signal has no unit; nothing to copy


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """An input as the record of a result names it.

    Attributes:
        profile: its intensities; None where it is no scan.
    """

    role: str
    sha256: str
    modality: Modality
    profile: IntensityProfile | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenContent:
    """What the result shall show.

    Attributes:
        pooled: c0.
        tokens: content of every place of the result, 0 outside of the scan; None: of no place.
        affine: of the result, where the places are given.
    """

    source: Source
    pooled: Float[Tensor, " Dc"]
    tokens: Float[Tensor, "X Y Z Dc"] | None
    affine: np.ndarray | None


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenStyle:
    """How the result shall look: s0.

    Attributes:
        domain: its name, where the model knows it.
    """

    source: Source
    pooled: Float[Tensor, " Ds"]
    domain: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenStart:
    """The standardised latent that noise is put on, and where it lies."""

    source: Source
    latent: Float[Tensor, "C x y z"]
    affine: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenMask:
    """What class lies where in the result.

    Attributes:
        shares: of each class in every latent voxel; background outside of the scan.
        affine: of the result, whose places the mask fixes.
    """

    sha256: str
    shares: Float[Tensor, "K x y z"]
    affine: np.ndarray


class ScanReader:
    """Scans of one request, each read and encoded once, however many parts it plays."""

    def __init__(self, model: Model, on_progress: OnProgress) -> None:
        self._model, self._on_progress = model, on_progress
        self._encoded: dict[str, EncodedScan] = {}

    def read(self, role: str, scan: Scan, choice: ScanChoice) -> tuple[Source, EncodedScan]:
        """The scan's tokens, and how the record names it."""
        self._on_progress(0.0, f"reading the {role}")
        volume = read_scan(scan, choice)
        encoded = self._encoded.get(volume.sha256)
        if encoded is None:
            check_memory(self._model, volume)
            encoded = self._encoded[volume.sha256] = encode_scan(self._model, volume, self._on_progress)
        source = Source(
            role=role,
            sha256=volume.sha256,
            modality=volume.modality,
            profile=encoded.prepared.profile,
            warnings=doubts_about(role, volume),
        )
        return source, encoded


def same_content(model: Model, source: Source, scan: EncodedScan, size: Position) -> GivenContent:
    """The content of every place around the centre of the body.

    Args:
        size: of the result, in tokens.
    """
    tokens = token_grid(scan, scan.content, model)
    coverage = coverage_grid(scan, model)
    corner = _corner(coverage, size)
    own, own_coverage = _cut(tokens, corner, size), _cut(coverage, corner, size)
    return GivenContent(
        source=source,
        pooled=pooled_factor(own.flatten(0, 2), own_coverage.flatten()),
        tokens=own,
        affine=_affine(model, scan, corner),
    )


def take_mask(model: Model, scan: EncodedScan, mask: str | Path | np.ndarray, size: Position) -> GivenMask:
    """The mask of the same places as `same_content`.

    Args:
        mask: labels on the scan's own grid.
        size: of the result, in tokens.

    Raises:
        InputError: the labels lie on another grid, or are none that the model's ControlNet knows.
    """
    assert model.card.control is not None, "a request for a mask needs a ControlNet"
    labels = labels_on(scan.prepared.volume, mask)
    whole = class_shares(model, scan.prepared, labels, model.card.control.labels)
    corner, patch = _corner(coverage_grid(scan, model), size), model.meduet.config.patch_size
    x, y, z = (start * patch for start in corner)
    dx, dy, dz = (length * patch for length in size)
    shares = _cut(whole.movedim(0, -1), (x, y, z), (dx, dy, dz)).movedim(-1, 0).contiguous()
    shares[0] += 1 - shares.sum(dim=0)
    if isinstance(mask, np.ndarray):
        sha256 = hashlib.sha256(np.ascontiguousarray(labels, np.int64).tobytes()).hexdigest()
    else:
        sha256 = file_sha256(Path(mask))
    return GivenMask(sha256=sha256, shares=shares, affine=_affine(model, scan, corner))


def similar_content(source: Source, scan: EncodedScan) -> GivenContent:
    """The pooled content of the whole scan (M-21)."""
    return GivenContent(source=source, pooled=scan.factors.content, tokens=None, affine=None)


def start_of(model: Model, source: Source, scan: EncodedScan, size: Position) -> GivenStart:
    """The latent around the centre of the body, as large as the result.

    Args:
        size: of the result, in tokens.

    Raises:
        InputError: the scan is smaller.
    """
    coverage = coverage_grid(scan, model)
    token = model.token_voxels
    if any(have < need for have, need in zip(coverage.shape, size, strict=True)):
        have, need = (
            " x ".join(str(side * step) for side, step in zip(sides, token, strict=True))
            for sides in (coverage.shape, size)
        )
        raise InputError(
            f"start_from covers {have} voxels of the working grid and the result {need}: choose a smaller "
            "size."
        )
    corner = _corner(coverage, size)
    patch = model.meduet.config.patch_size
    x, y, z = (start * patch for start in corner)
    dx, dy, dz = (length * patch for length in size)
    latent = cut_window(scan.latent, (x, y, z), (dx, dy, dz))
    return GivenStart(source=source, latent=latent, affine=_affine(model, scan, corner))


def take_style(model: Model, reader: ScanReader, style: Scan, choice: ScanChoice) -> GivenStyle:
    """s0 of a scan, a prototype or a domain the model knows.

    Raises:
        InputError: there is no such file or domain, or the prototype is another model's.
    """
    if not isinstance(style, Volume):
        if str(style) in model.known_styles:
            sha256 = model.card.files[STYLES_FILE].sha256
            return _of_prototype(model.known_styles[str(style)], sha256, str(style))
        path = Path(style)
        if path.suffix == STYLE_SUFFIX:
            prototype = load_style(path)
            prototype.check_model(model.sha256, shown_name(path))
            return _of_prototype(prototype, file_sha256(path))
        if not path.exists():
            known = ", ".join(model.known_styles) or "none"
            raise InputError(f"{shown_name(path)}: is no file, and no style that the model knows: {known}.")
    source, scan = reader.read("style", style, choice)
    return GivenStyle(source=source, pooled=scan.factors.style.mean)


def _of_prototype(prototype: Style, sha256: str, domain: str | None = None) -> GivenStyle:
    source = Source(role="style", sha256=sha256, modality=prototype.modality)
    return GivenStyle(source=source, pooled=prototype.statistics.mean, domain=domain)


def centred_affine(model: Model, size: Position) -> np.ndarray:
    """The affine of a result that lies nowhere in a patient: RAS, its centre at 0.

    Args:
        size: of the result, in tokens.
    """
    token, spacing = model.token_voxels, model.card.working_spacing_mm
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = [-spacing * (length * step - 1) / 2 for length, step in zip(size, token, strict=True)]
    return affine


def _corner(coverage: Float[Tensor, "X Y Z"], size: Position) -> Position:
    """First token of a box around the centre of the body: inside the scan, or around a smaller scan."""
    corner = []
    for axis, (length, width) in enumerate(zip(coverage.shape, size, strict=True)):
        profile = coverage.sum(dim=[other for other in range(3) if other != axis])
        centre = float((profile * (torch.arange(length) + 0.5)).sum() / profile.sum())
        first, last = min(0, (length - width) // 2), max(length - width, (length - width) // 2)
        corner.append(min(max(round(centre - width / 2), first), last))
    x, y, z = corner
    return x, y, z


def _cut(grid: Float[Tensor, "X Y Z *D"], corner: Position, size: Position) -> Tensor:
    """A box of a grid, 0 where it reaches beyond."""
    margins = [
        (max(0, -start), max(0, start + width - length))
        for start, width, length in zip(corner, size, grid.shape[:3], strict=True)
    ]
    trailing = [0, 0] * (grid.ndim - 3)
    padded = F.pad(grid, trailing + [amount for pair in reversed(margins) for amount in pair])
    box = tuple(
        slice(max(0, start), max(0, start) + width) for start, width in zip(corner, size, strict=True)
    )
    return padded[box]


def _affine(model: Model, scan: EncodedScan, corner: Position) -> np.ndarray:
    """The affine of a box of the working grid that begins at a token."""
    token = model.token_voxels
    affine = np.array(scan.prepared.grid.affine)
    first = np.array(corner) * token - np.array(scan.prepared.before)  # working voxel
    affine[:3, 3] += affine[:3, :3] @ first
    return affine
