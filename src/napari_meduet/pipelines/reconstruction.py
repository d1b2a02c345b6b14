"""decode(encode(scan)) on the scan's own grid, and how near it came."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_meduet.errors import OnProgress
from napari_meduet.models.loading import load_model
from napari_meduet.pipelines.common.encoding import (
    PreparedScan,
    decode_latent,
    decode_windows,
    encode_latent,
    encode_scan,
    prepare_scan,
)
from napari_meduet.pipelines.common.measures import psnr, ssim
from napari_meduet.pipelines.common.memory import check_memory
from napari_meduet.pipelines.common.progress import null_progress, parts
from napari_meduet.pipelines.common.provenance import provenance
from napari_meduet.pipelines.factors import read_scan
from napari_meduet.pipelines.requests import RoundtripRequest
from napari_meduet.volumes.files import write_volume
from napari_meduet.volumes.intensity import body_mask
from napari_meduet.volumes.volume import Volume

CT_RANGE_HU = (-1000.0, 1000.0)  # in which published CT tokenizers are compared


@dataclass(frozen=True)
class Likeness:
    """PSNR and SSIM inside the body, and where and in which range they were measured."""

    where: str
    psnr_db: float
    ssim: float


@dataclass(frozen=True, kw_only=True, eq=False)
class RoundtripResult:
    """The scan after encoding and decoding, on its own grid, and its likeness to the scan."""

    volume: Volume
    likenesses: tuple[Likeness, ...]
    provenance: dict[str, Any]

    def save(self, path: Path | str, *, overwrite: bool = False) -> None:
        """Write the volume as NIfTI, its provenance inside and beside it."""
        write_volume(path, self.volume, provenance=self.provenance, overwrite=overwrite)


@torch.inference_mode()
def roundtrip(request: RoundtripRequest, on_progress: OnProgress = null_progress) -> RoundtripResult:
    """Encode a scan, decode it, and compare."""
    on_progress(0.0, "reading")
    model = load_model(request.model, request.device)
    volume = read_scan(request.scan, request.choice)
    check_memory(model, volume)
    first, second, third, last = parts(on_progress, 3, 2 if request.through == "meduet" else 0, 3, 4)
    if request.through == "meduet":
        encoded = encode_scan(model, volume, first)
        prepared = encoded.prepared
        latent = decode_windows(model, encoded, lambda run: encoded.style[run], second)
    else:
        prepared = prepare_scan(model, volume)
        latent = encode_latent(model, prepared, first)
    restored = decode_latent(model, prepared, latent, third)
    last(0.0, "comparing")
    values = prepared.profile.decode(prepared.grid.to_native(restored))
    working = prepared.grid.to_working(prepared.values)
    where = f"{model.card.working_spacing_mm:g} mm grid"
    likenesses = _likeness(where, prepared, working, prepared.profile.decode(restored), prepared.body)
    last(0.4, "comparing")
    body = body_mask(prepared.values, volume.modality)
    likenesses += _likeness("own grid", prepared, prepared.values, values, body)
    last(1.0, "done")
    record = provenance(
        kind="roundtrip",
        modality=volume.modality,
        is_synthetic=True,
        sources=[("scan", volume.sha256)],
        model=model,
        parameters={"through": request.through, "likenesses": [asdict(likeness) for likeness in likenesses]},
        warnings=volume.warnings,
    )
    return RoundtripResult(volume=volume.with_values(values), likenesses=tuple(likenesses), provenance=record)


def _likeness(
    where: str, scan: PreparedScan, truth: np.ndarray, restored: np.ndarray, body: np.ndarray
) -> list[Likeness]:
    """In profile units, and for CT in HU too; an MR profile is the percentile range itself.

    Args:
        truth, restored: values in the scan's unit.
    """
    units = scan.profile.encode(truth), scan.profile.encode(restored)
    found = [Likeness(f"{where}, profile units", psnr(*units, 1.0, body), ssim(*units, 1.0, body))]
    if scan.volume.modality == "CT":
        low, high = CT_RANGE_HU
        hounsfield = np.clip(truth, low, high), np.clip(restored, low, high)
        width = high - low
        found.append(Likeness(f"{where}, HU", psnr(*hounsfield, width, body), ssim(*hounsfield, width, body)))
    return found
