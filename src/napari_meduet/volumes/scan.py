"""What a format's reader hands over: a scan read from its file, before its modality and values are judged."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from napari_meduet.volumes.volume import Modality


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Voxels, their place and what the file said about them."""

    voxels: np.ndarray  # (X, Y, Z), native byte order
    affine: NDArray[np.float64]  # voxel index -> RAS mm
    slope: float
    intercept: float
    warnings: list[str]
    sha256: str
    modality: Modality | None = None  # if the file tells
    header: nib.Nifti1Header | None = None
    synthetic: Mapping[str, Any] | None = None
