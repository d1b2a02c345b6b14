"""Phantoms that differ like two patients. They are large enough for a window, and fast to read."""

from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from volumes.corpus import dicom_slice

SIDE = 50  # voxels of 3 mm: 99 of the working grid, and a window needs 96


def body(seed: int, side: int = SIDE) -> np.ndarray:
    """Return the soft tissue of one patient in HU, with scanner noise, and air around it."""
    rng = np.random.default_rng(seed)
    tissue = ndimage.gaussian_filter(rng.normal(size=(side,) * 3), 2.0)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, side)] * 3, indexing="ij")
    inside = x**2 + 1.3 * y**2 + 0.1 * z**2 < 0.8
    values = np.where(inside, 40.0 + 60.0 * tissue / tissue.std() + rng.normal(0, 10, tissue.shape), -1000.0)
    return np.rint(values).astype(np.int16)


def save_body(
    path: Path, seed: int = 0, *, values: np.ndarray | None = None, spacing_mm: float = 3.0
) -> Path:
    """Save a body as NIfTI, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-spacing_mm, -spacing_mm, spacing_mm, 1.0])
    nib.save(nib.Nifti1Image(body(seed) if values is None else values, affine), path)
    return path


def save_dicom(folder: Path, seed: int = 0, **fields: object) -> Path:
    """Save a body as a DICOM series of patient Jane Doe, 4711, with additional fields in every slice."""
    folder.mkdir(parents=True, exist_ok=True)
    values = body(seed)
    series = {"SeriesInstanceUID": f"1.2.3.4.{seed}", "SeriesNumber": seed} | fields
    for k in range(SIDE):
        dataset = dicom_slice(
            k,
            Rows=SIDE, Columns=SIDE, PixelSpacing=[3.0, 3.0], ImagePositionPatient=[0, 0, 3.0 * k],
            PixelData=(values[:, :, k].T.astype(np.int32) + 1024).astype(np.uint16).tobytes(),
            **series,
        )  # fmt: skip
        dataset.save_as(folder / f"{series['SeriesNumber']}-{k}", enforce_file_format=True)
    return folder
