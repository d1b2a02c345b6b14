"""Scans for the benchmarks: from the data folder, or the sample scans of the package if there is none."""

import os
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import zoom

from napari_meduet.volumes.intensity import IntensityProfile
from napari_meduet.volumes.preparation import WorkingGrid
from napari_meduet.volumes.volume import Volume

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "src" / "napari_meduet" / "samples"
CT_SAMPLES = (SAMPLES / "ct_chest_soft_kernel.nii.gz", SAMPLES / "ct_chest_sharp_kernel.nii.gz")


def data_folder() -> Path:
    """Return the folder of the scans: MEDUET_DATA, or `shared/data` beside the repository."""
    return Path(os.environ.get("MEDUET_DATA", ROOT.parent / "shared" / "data"))


def ct_scans(names: Sequence[str], folder: Path | None = None) -> list[Path]:
    """Return the paths of these scans of the data folder that exist, or the CT samples if none does."""
    paths = [(folder or data_folder()) / name for name in names]
    return [path for path in paths if path.is_file()] or list(CT_SAMPLES)


def normalised(volume: Volume, profile: IntensityProfile) -> np.ndarray:
    """Return a scan on the working grid (X, Y, Z), in normalised intensity."""
    return profile.encode(WorkingGrid.for_volume(volume).to_working(volume.values()))


def enlarge(source: Path, target: Path, shape: tuple[int, int, int]) -> None:
    """Write a scan of this shape with the field of view of the source."""
    image = nib.Nifti1Image.from_filename(source)
    voxels = np.asanyarray(image.dataobj).astype(np.float32)
    factors = np.array(shape) / voxels.shape
    affine = image.affine @ np.diag([*(1 / factors), 1.0])
    enlarged = np.rint(zoom(voxels, factors, order=1)).astype(np.int16)
    nib.save(nib.Nifti1Image(enlarged, affine), target)
