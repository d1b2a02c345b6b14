"""A volume: voxels with a place in the patient and a unit.

It knows numbers and their meaning. Where they came from is files.py's business, how the network wants
them preparation.py's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from napari_meduet.volumes.modality import Modality

UNITS: dict[Modality, str] = {"CT": "HU", "MR": "arbitrary"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """One scan on its own grid, as its file stores it."""

    voxels: (
        np.ndarray
    )  # (X, Y, Z) in the file's own voxel order and dtype; value = voxels * slope + intercept
    affine: NDArray[np.float64]  # (4, 4) voxel index -> RAS mm
    slope: float = 1.0
    intercept: float = 0.0
    modality: Modality
    unit: str  # "HU" for CT, "arbitrary" for MR
    warnings: tuple[str, ...] = ()  # what is doubtful, one sentence each
    sha256: str  # of the file's bytes; of a DICOM series, of its files' digests in slice order
    header: nib.Nifti1Header | None = None  # codes, units and scaling to write back; never a patient's name
    synthetic: Mapping[str, Any] | None = None  # the provenance found in the file, if a model made it

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along each voxel axis."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    def values(self) -> NDArray[np.float32]:
        """The voxels in `unit`, (X, Y, Z), in the memory order of the voxels."""
        return self.in_unit(self.voxels)

    def with_values(self, values: np.ndarray) -> "Volume":
        """The same scan holding other values, rounded and saturated into its own dtype and scaling.

        A voxel whose value did not change keeps its stored number bit for bit.
        """
        if values.shape != self.voxels.shape:
            raise ValueError(f"These values are {values.shape}; the scan's grid is {self.voxels.shape}.")
        voxels = self.voxels.copy(order="F")
        # Plane by plane as they lie in memory: rounding needs 64 bits, too many for a whole scan at once.
        for stored, wanted in zip(voxels.T, values.T, strict=True):
            changed = wanted != self.in_unit(stored)
            if changed.any():
                np.copyto(stored, self._stored(wanted), where=changed)
        return replace(self, voxels=voxels)

    def in_unit(self, voxels: np.ndarray) -> NDArray[np.float32]:
        """Numbers as the scan stores them, or means of such, in `unit`."""
        values = voxels.astype(np.float32)  # always a copy: the caller may write into it
        if self.slope != 1.0:
            values *= np.float32(self.slope)
        if self.intercept != 0.0:
            values += np.float32(self.intercept)
        return values

    def _stored(self, values: np.ndarray) -> np.ndarray:
        """The numbers that stand for these values in the file."""
        if not np.isfinite(values).all():
            raise ValueError("These values contain NaN or infinity; a scan must be finite everywhere.")
        numbers = (values.astype(np.float64) - self.intercept) / self.slope
        dtype = self.voxels.dtype
        if dtype.kind == "f":
            largest = float(np.finfo(dtype).max)
            return np.clip(numbers, -largest, largest).astype(dtype)
        lowest, highest = float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
        if int(highest) > np.iinfo(dtype).max:  # 64 bits: the next float64 below still fits
            highest = float(np.nextafter(highest, 0))
        return np.clip(np.rint(numbers), lowest, highest).astype(dtype)
