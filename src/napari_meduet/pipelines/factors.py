"""The factors of scans, and the style that several share (specification, section 7, M-21, Eq. 25).

The factors of a scan are its pooled content and style, and the token grids from which they were pooled. A
prototype is the mean style of K scans, with the mean energies of their texture. `style_swap/session.py`
applies a style to a scan.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from napari_meduet.core.factors import StyleStatistics, style_prototype
from napari_meduet.errors import InputError, OnProgress
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model
from napari_meduet.models.styles import Style, pack_styles
from napari_meduet.pipelines.common.encoding import (
    EncodedScan,
    coverage_grid,
    decode_latent,
    decode_windows,
    encode_scan,
    token_grid,
)
from napari_meduet.pipelines.common.memory import check_memory
from napari_meduet.pipelines.common.outputs import write_result
from napari_meduet.pipelines.common.progress import null_progress, part, parts
from napari_meduet.pipelines.common.provenance import provenance
from napari_meduet.pipelines.common.scan_texture import (
    mean_energies,
    measured_texture,
    texture_tissue,
    texture_unit,
)
from napari_meduet.pipelines.requests import ExtractRequest, PrototypeRequest, Scan, ScanChoice
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.volume import Volume

FACTORS_FORMAT = "napari-meduet factors 1"


@dataclass(frozen=True, kw_only=True, eq=False)
class ExtractedFactors:
    """What a model tells of one scan.

    Attributes:
        content, style: c0 (Dc,) and s0 (Ds,).
        content_tokens, style_tokens: (X, Y, Z, D) on one grid of tokens, RAS.
        coverage: (X, Y, Z), share of body in each token.
        affine: (4, 4), token index -> RAS mm.
        name: of the file; None unless it was asked for.
    """

    content: np.ndarray
    style: np.ndarray
    content_tokens: np.ndarray
    style_tokens: np.ndarray
    coverage: np.ndarray
    affine: np.ndarray
    modality: str
    sha256: str
    name: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class FactorsResult:
    """The factors of each scan that was asked for, in that order."""

    scans: tuple[ExtractedFactors, ...]
    provenance: dict[str, Any]

    def save(self, path: Path | str, *, overwrite: bool = False) -> None:
        """Write `path` (safetensors) and its sidecar; tensors are named `0/content`, `0/style` and so on."""
        arrays = ("content", "style", "content_tokens", "style_tokens", "coverage", "affine")
        tensors = {
            f"{number}/{name}": torch.from_numpy(np.ascontiguousarray(getattr(scan, name)))
            for number, scan in enumerate(self.scans)
            for name in arrays
        }
        records = [
            {"sha256": scan.sha256, "modality": scan.modality} | ({"name": scan.name} if scan.name else {})
            for scan in self.scans
        ]
        metadata = {
            "format": FACTORS_FORMAT,
            "scans": json.dumps(records),
            "provenance": json.dumps(self.provenance),
        }
        write_result(Path(path), save(tensors, metadata), self.provenance, overwrite=overwrite)


@dataclass(frozen=True, kw_only=True, eq=False)
class PrototypeResult:
    """The style that scans share."""

    style: Style
    provenance: dict[str, Any]

    def save(self, path: Path | str, *, overwrite: bool = False) -> None:
        """Write `path` (a `.style` file) and its sidecar."""
        content = pack_styles({"style": self.style}, self.provenance)
        write_result(Path(path), content, self.provenance, overwrite=overwrite)


def read_scan(scan: Scan, choice: ScanChoice) -> Volume:
    """The volume itself, or read from its file."""
    if isinstance(scan, Volume):
        return scan
    return read_volume(
        Path(scan), volume_index=choice.volume_index, series=choice.series, modality=choice.modality
    )


def doubts_about(role: str, volume: Volume) -> tuple[str, ...]:
    """What was doubtful when an input was read, each sentence with the part that the input plays."""
    doubts = list(volume.warnings)
    if volume.synthetic and volume.synthetic.get("synthetic"):
        doubts.append("it was itself made by a model, not by a scanner.")
    return tuple(f"{role.capitalize()}: {doubt}" for doubt in doubts)


@torch.inference_mode()
def extract(request: ExtractRequest, on_progress: OnProgress = null_progress) -> FactorsResult:
    """Pooled factors and token grids of scans (M-21)."""
    model = load_model(request.model, request.device)
    found, warnings = [], []
    for number, scan in enumerate(request.scans):
        stage = part(on_progress, number / len(request.scans), (number + 1) / len(request.scans))
        stage(0.0, "reading")
        volume = read_scan(scan, request.choice)
        check_memory(model, volume)
        encoded = encode_scan(model, volume, stage)
        name = Path(scan).name if request.keep_names and not isinstance(scan, Volume) else None
        found.append(_factors(model, encoded, name))
        warnings += [warning for warning in volume.warnings if warning not in warnings]
    on_progress(1.0, "done")
    record = provenance(
        kind="factors",
        modality=" ".join(sorted({scan.modality for scan in found})),
        is_synthetic=False,
        sources=[("scan", scan.sha256) for scan in found],
        model=model,
        parameters={"num_scans": len(found)},
        warnings=warnings,
    )
    return FactorsResult(scans=tuple(found), provenance=record)


@torch.inference_mode()
def make_prototype(request: PrototypeRequest, on_progress: OnProgress = null_progress) -> PrototypeResult:
    """The mean style of scans of one scanner or site (core.factors, Eq. 25)."""
    model = load_model(request.model, request.device)
    styles, sources, warnings = [], [], []
    for number, scan in enumerate(request.scans):
        stage = part(on_progress, number / len(request.scans), (number + 1) / len(request.scans))
        stage(0.0, "reading")
        volume = read_scan(scan, request.choice)
        if styles and volume.modality != styles[0].modality:
            raise InputError(
                f"A prototype is the style of one scanner: scan {number + 1} is {volume.modality}, "
                f"the ones before it are {styles[0].modality}."
            )
        check_memory(model, volume)
        styles.append(measure_scan(model, volume, stage).style)
        sources.append(("scan", volume.sha256))
        warnings += [warning for warning in volume.warnings if warning not in warnings]
    on_progress(1.0, "done")
    record = provenance(
        kind="prototype",
        modality=styles[0].modality,
        is_synthetic=False,
        sources=sources,
        model=model,
        parameters={"num_scans": len(styles)},
        warnings=warnings,
    )
    return PrototypeResult(style=mean_style(styles), provenance=record)


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredScan:
    """An encoded scan, and what its own tokens give back of it.

    Attributes:
        restored: decode(z_ii), (X, Y, Z) on the working grid in profile units.
        remainder: the scan minus `restored`, on its own grid: HU for CT, shares of the profile's width for
            MR.
        tissue: where the remainder's texture is measured.
        style: its style statistics and the texture of the remainder.
    """

    encoded: EncodedScan
    restored: np.ndarray
    remainder: np.ndarray
    tissue: np.ndarray
    style: Style


def measure_scan(model: Model, volume: Volume, on_progress: OnProgress) -> MeasuredScan:
    """Encode a scan, decode its own tokens, and measure its style and the texture those do not carry."""
    encoding, joining, decoding, measuring = parts(on_progress, 4, 2, 2, 2)
    encoded = encode_scan(model, volume, encoding)
    latent = decode_windows(model, encoded, lambda run: encoded.style[run], joining)
    restored = decode_latent(model, encoded.prepared, latent, decoding)

    measuring(0.0, "measuring texture")
    prepared, statistics = encoded.prepared, encoded.factors.style
    native = prepared.grid.to_native(prepared.profile.decode(restored))
    tissue = texture_tissue(prepared)
    measuring(0.5, "measuring texture")
    remainder = np.subtract(prepared.values, native, out=np.empty_like(prepared.values))
    remainder /= np.float32(texture_unit(prepared))
    style = Style(
        statistics=statistics,
        spread=_spread(encoded.window_styles, statistics),
        texture=measured_texture(prepared, remainder, tissue),
        modality=volume.modality,
        num_scans=1,
        model_sha256=model.sha256,
        working_spacing_mm=model.card.working_spacing_mm,
    )
    return MeasuredScan(encoded=encoded, restored=restored, remainder=remainder, tissue=tissue, style=style)


def mean_style(styles: Sequence[Style]) -> Style:
    """The style that several share; of one, that one to the last bit (core.factors, Eq. 25)."""
    if len(styles) == 1:
        return styles[0]
    statistics = style_prototype([style.statistics for style in styles])
    apart = [float((style.statistics.mean - statistics.mean).square().sum()) for style in styles]
    within = [style.spread**2 for style in styles]
    return Style(
        statistics=statistics,
        spread=float(np.sqrt(np.mean(apart) + np.mean(within))),
        texture=mean_energies([style.texture for style in styles]),
        modality=styles[0].modality,
        num_scans=sum(style.num_scans for style in styles),
        model_sha256=styles[0].model_sha256,
        working_spacing_mm=styles[0].working_spacing_mm,
    )


def _spread(window_styles: torch.Tensor, statistics: StyleStatistics) -> float:
    if not len(window_styles):
        return 0.0
    return float((window_styles - statistics.mean).square().sum(dim=1).mean().sqrt())


def _factors(model: Model, scan: EncodedScan, name: str | None) -> ExtractedFactors:
    prepared = scan.prepared
    token = model.token_voxels
    affine = np.array(prepared.grid.affine)
    centre = (np.array(token) - 1) / 2 - np.array(prepared.before)  # of the first token, in working voxels
    affine[:3, 3] = affine[:3, :3] @ centre + affine[:3, 3]
    affine[:3, :3] *= token
    return ExtractedFactors(
        content=scan.factors.content.numpy(),
        style=scan.factors.style.mean.numpy(),
        content_tokens=token_grid(scan, scan.content, model).numpy(),
        style_tokens=token_grid(scan, scan.style, model).numpy(),
        coverage=coverage_grid(scan, model).numpy(),
        affine=affine,
        modality=prepared.volume.modality,
        sha256=prepared.volume.sha256,
        name=name,
    )
