"""Crops of real scans: the references and the conditions of generated crops."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from meduet_training.data.caches.factors import FactorEntry
from meduet_training.data.cohort.scan import Scan, read_scan
from meduet_training.data.sources.factors import FactorSource
from napari_meduet.core.factors import pooled_factor
from napari_meduet.errors import InputError
from napari_meduet.models.model import Model
from napari_meduet.pipelines.common.encoding import padded_units, prepare_scan


@dataclass(frozen=True, kw_only=True, eq=False)
class RealCrops:
    """N crops of scans; row k of every field belongs to crop k.

    Attributes:
        voxels: normalised intensity, in half precision.
        latent: standardised latent means.
        content: c0 of the crop.
        style: s0 of the whole scan.
        spatial_content: content tokens of the crop.
        domains, patients, modalities: (N,), strings; patients are hashes.
    """

    voxels: Float[Tensor, "N X Y Z"]
    latent: Float[Tensor, "N C x y z"]
    content: Float[Tensor, "N Dc"]
    style: Float[Tensor, "N Ds"]
    spatial_content: Float[Tensor, "N L Dc"]
    domains: np.ndarray
    patients: np.ndarray
    modalities: np.ndarray

    def __len__(self) -> int:
        return len(self.voxels)

    def rows(self, chosen: np.ndarray) -> "RealCrops":
        """Return the crops with these indices, which may repeat."""
        return RealCrops(**{each.name: getattr(self, each.name)[chosen] for each in fields(self)})


def sample_crops(
    model: Model,
    scans: Sequence[Scan],
    entries: Sequence[FactorEntry],
    size: tuple[int, int, int],
    count: int,
    seed: int,
) -> RealCrops:
    """Sample crops as the training of a generator does: evenly over domains, with body where possible.

    Args:
        entries: factors of the scans, in the same order.
        size: tokens along each axis.

    Raises:
        InputError: every scan is smaller than a crop.
    """
    large = [k for k, entry in enumerate(entries) if all(np.greater_equal(entry.grid, size))]
    if not large:
        raise InputError(
            f"All {len(scans)} scans are smaller than a crop of the generator ({size} tokens of "
            f"{' x '.join(map(str, model.token_voxels))} voxels). Add larger scans."
        )
    chosen = FactorSource([entries[k] for k in large], size, seed).choose(0, count)
    scan_voxels = {k: _voxels(model, scans[k]) for k in sorted({large[each.scan] for each in chosen})}
    token = model.token_voxels
    rows, voxels = [], []
    for each in chosen:
        rows.append(entries[large[each.scan]].read(each.corner, size))
        box = (
            slice(corner * step, (corner + side) * step)
            for corner, side, step in zip(each.corner, size, token, strict=True)
        )
        voxels.append(scan_voxels[large[each.scan]][tuple(box)])
    sources = [entries[large[each.scan]] for each in chosen]
    content = torch.stack([row["content"].flatten(0, 2) for row in rows])
    return RealCrops(
        voxels=torch.stack(voxels),
        latent=torch.stack([row["mean"] for row in rows]),
        content=pooled_factor(content, torch.stack([row["coverage"].flatten() for row in rows])),
        style=torch.stack([entry.style for entry in sources]),
        spatial_content=content,
        domains=np.array([entry.domain for entry in sources]),
        patients=np.array([entry.patient for entry in sources]),
        modalities=np.array([entry.modality for entry in sources]),
    )


def _voxels(model: Model, scan: Scan) -> Float[Tensor, "X Y Z"]:
    """Return a scan on the padded working grid of its tokens."""
    return padded_units(prepare_scan(model, read_scan(scan)))[0, 0].half()
