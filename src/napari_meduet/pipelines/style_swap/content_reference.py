"""What a scan itself says before any swap: its edges, how much its own halves differ, how well it is encoded.

Noise floor and round trip need the network and are sampled on a few of the scan's sub-volumes, those that
hold most of the body. `safety.py` judges results against these numbers.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from napari_meduet.core.factors import style_statistics
from napari_meduet.core.sliding_windows import Position, cut_window
from napari_meduet.core.swapping import shift_style
from napari_meduet.errors import OnProgress
from napari_meduet.models.model import Model
from napari_meduet.pipelines.common.encoding import EncodedScan, padded_body, padded_units
from napari_meduet.pipelines.common.measures import psnr
from napari_meduet.pipelines.style_swap.edges import Gradient, gradient

NUM_SAMPLES = 4  # sub-volumes; more change the noise floor by less than it differs between scans
MOST_BODY = 0.5  # a sample holds at least this share of what the fullest sub-volume holds


@dataclass(frozen=True, kw_only=True, eq=False)
class ContentReference:
    """The measurements of a content scan that every rendering of a swap shares.

    Attributes:
        edges: gradient of the scan on the working grid, in profile units.
        noise_floor: mean absolute change of the body, in the scan's unit, when one half of its sub-volumes
            takes the style of the other half.
        roundtrip_psnr_db: of the tokenizer alone, inside the body, in profile units.
    """

    edges: Gradient
    noise_floor: float
    roundtrip_psnr_db: float

    @classmethod
    def of(cls, model: Model, scan: EncodedScan, on_progress: OnProgress) -> Self:
        """Measure a content scan."""
        prepared, size = scan.prepared, model.meduet.config.latent_shape[1:]
        on_progress(0.0, "checking the scan")
        edges = gradient(prepared.units, model.card.working_spacing_mm)
        units, body = padded_units(prepared)[0, 0], padded_body(prepared)[0, 0]
        first, second = _halves(scan)
        changes, restored, truth = [], [], []
        samples = _samples(scan)
        for number, index in enumerate(samples):
            on_progress(0.2 + 0.8 * number / len(samples), "checking the scan")
            corner = scan.positions[index]
            content, style = scan.content[index : index + 1], scan.style[index : index + 1]
            before, after = (
                _decoded(model, content, tokens) for tokens in (style, shift_style(style, first, second))
            )
            inside = _voxels(body, corner, size, model.tokenizer.stride).numpy() > 0
            change = prepared.profile.decode(after) - prepared.profile.decode(before)
            changes.append(np.abs(change[inside]))

            latent = model.restored(cut_window(scan.latent, corner, size)[None])
            halo = min(model.tokenizer.halo, min(size) // 2 - 1)
            margins = [halo * stride for stride in model.tokenizer.stride]
            core = (
                tuple(slice(margin, -margin) for margin in margins) if halo else (...,)
            )  # where the cut is not felt
            decoded = model.tokenizer.decode(latent.to(model.device))[0, 0].float().cpu().numpy()
            restored.append(decoded[core][inside[core]])
            truth.append(_voxels(units, corner, size, model.tokenizer.stride).numpy()[core][inside[core]])
        every = np.concatenate(changes)
        pair = np.concatenate(truth), np.concatenate(restored)
        return cls(
            edges=edges,
            noise_floor=float(every.mean()) if every.size else 0.0,
            roundtrip_psnr_db=psnr(*pair, data_range=1.0, mask=np.ones(pair[0].shape, bool)),
        )


def _halves(scan: EncodedScan):
    """Style statistics of every second sub-volume, and of the others; of one alone, of its two ends."""
    if len(scan.positions) > 1:
        runs = [(scan.style[start::2], scan.coverage[start::2]) for start in (0, 1)]
    else:
        middle = scan.style.shape[1] // 2
        runs = [
            (scan.style[:, part], scan.coverage[:, part]) for part in (slice(middle), slice(middle, None))
        ]
    return [style_statistics(style.flatten(0, 1), coverage.flatten()) for style, coverage in runs]


def _samples(scan: EncodedScan) -> list[int]:
    """Sub-volumes that hold much of the body, spread over the scan."""
    body = scan.coverage.mean(dim=1)
    full = torch.nonzero(body >= MOST_BODY * body.max()).flatten().tolist()
    steps = np.linspace(0, len(full) - 1, min(NUM_SAMPLES, len(full)))
    return [full[round(step)] for step in steps]


def _decoded(model: Model, content: Tensor, style: Tensor) -> np.ndarray:
    """One window of tokens as voxels in profile units."""
    latent = model.meduet.decode(content.to(model.device), style.to(model.device)).float().cpu()
    return model.tokenizer.decode(model.restored(latent).to(model.device))[0, 0].float().cpu().numpy()


def _voxels(volume: Tensor, corner: Position, size: Position, stride: Position) -> Tensor:
    """The voxels of a padded working volume that a window of its latent covers."""
    sides = zip(corner, size, stride, strict=True)
    x, y, z = (slice(start * step, (start + side) * step) for start, side, step in sides)
    return volume[x, y, z]
