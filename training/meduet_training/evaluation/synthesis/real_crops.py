"""Crops of real scans: what generated volumes are compared with, and what they are asked to show."""

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
    """N crops of scans; rows of every field belong together.

    Attributes:
        units: the voxels in profile units, in half precision.
        latent: standardised means.
        content: c0 of the crop.
        style: s0 of the whole scan.
        spatial_content: content tokens of the crop's places.
        domains, patients, modalities: (N,) words; patients are hashes.
    """

    units: Float[Tensor, "N X Y Z"]
    latent: Float[Tensor, "N C x y z"]
    content: Float[Tensor, "N Dc"]
    style: Float[Tensor, "N Ds"]
    spatial_content: Float[Tensor, "N L Dc"]
    domains: np.ndarray
    patients: np.ndarray
    modalities: np.ndarray

    def __len__(self) -> int:
        return len(self.units)

    def rows(self, chosen: np.ndarray) -> "RealCrops":
        """Some of the crops, by index; one may come several times."""
        return RealCrops(**{each.name: getattr(self, each.name)[chosen] for each in fields(self)})


def draw_crops(
    model: Model,
    scans: Sequence[Scan],
    entries: Sequence[FactorEntry],
    size: tuple[int, int, int],
    count: int,
    seed: int,
) -> RealCrops:
    """Crops drawn as the training of a generator draws them: domains alike, with body in them where possible.

    Args:
        entries: of the scans, in their order.
        size: tokens along each axis.

    Raises:
        InputError: no scan is as large as a crop.
    """
    large = [k for k, entry in enumerate(entries) if all(np.greater_equal(entry.grid, size))]
    if not large:
        raise InputError(
            f"None of the {len(scans)} scans is as large as what the generator writes ({size} tokens of "
            f"{model.token_voxels} voxels)."
        )
    chosen = FactorSource([entries[k] for k in large], size, seed).choose(0, count)
    voxels = {k: _voxels(model, scans[k]) for k in sorted({large[each.scan] for each in chosen})}
    token = model.token_voxels
    rows, units = [], []
    for each in chosen:
        rows.append(entries[large[each.scan]].read(each.corner, size))
        place = (
            slice(corner * token, (corner + side) * token)
            for corner, side in zip(each.corner, size, strict=True)
        )
        units.append(voxels[large[each.scan]][tuple(place)])
    of = [entries[large[each.scan]] for each in chosen]
    content = torch.stack([row["content"].flatten(0, 2) for row in rows])
    return RealCrops(
        units=torch.stack(units),
        latent=torch.stack([row["mean"] for row in rows]),
        content=pooled_factor(content, torch.stack([row["coverage"].flatten() for row in rows])),
        style=torch.stack([entry.style for entry in of]),
        spatial_content=content,
        domains=np.array([entry.domain for entry in of]),
        patients=np.array([entry.patient for entry in of]),
        modalities=np.array([entry.modality for entry in of]),
    )


def _voxels(model: Model, scan: Scan) -> Float[Tensor, "X Y Z"]:
    """A scan on the padded working grid that its entry's tokens lie on."""
    return padded_units(prepare_scan(model, read_scan(scan)))[0, 0].half()
