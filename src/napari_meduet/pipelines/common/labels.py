"""Label volumes on the grid of a scan (specification, sections 8 and 9)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from napari_meduet.core.synthesis.control import mask_fractions
from napari_meduet.errors import InputError
from napari_meduet.models.model import Model
from napari_meduet.pipelines.common.encoding import PreparedScan, padding_amounts
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.volume import Volume

GRID_TOLERANCE_MM = 0.01  # two grids whose affines agree within this are one


def check_same_grid(scans: Sequence[Volume]) -> None:
    """Refuse sequences of a patient that were not resampled to one grid.

    Raises:
        InputError: with what to do.
    """
    first = scans[0]
    for other in scans[1:]:
        same_shape = other.voxels.shape == first.voxels.shape
        if not (same_shape and np.allclose(other.affine, first.affine, atol=GRID_TOLERANCE_MM)):
            raise InputError(
                "Sequences that are seen together need one grid: these measure "
                f"{' x '.join(map(str, first.voxels.shape))} and {' x '.join(map(str, other.voxels.shape))} "
                "voxels, or lie at different places. Resample one to the other."
            )


def labels_on(scan: Volume, given: str | Path | np.ndarray) -> np.ndarray:
    """Labels on the grid of a scan: whole numbers (X, Y, Z).

    Raises:
        InputError: they lie on another grid, or are no whole numbers.
    """
    shape, where = scan.voxels.shape, "labels"
    if isinstance(given, np.ndarray):
        labels = given
    else:
        where = Path(given).name
        volume = read_volume(given, modality="MR")  # integers without a unit; nothing must be guessed
        labels = volume.values()
        if labels.shape == shape and not np.allclose(volume.affine, scan.affine, atol=GRID_TOLERANCE_MM):
            raise InputError(f"{where}: the labels lie elsewhere in space than the content.")
        if not np.array_equal(labels, np.rint(labels)):
            raise InputError(f"{where}: labels are whole numbers; this file holds others.")
        labels = labels.astype(np.int32)
    if labels.shape != shape:
        raise InputError(f"{where}: the labels measure {labels.shape}, the content {shape}.")
    return labels


def class_shares(
    model: Model, scan: PreparedScan, labels: np.ndarray, known: Sequence[int]
) -> Float[Tensor, "K x y z"]:
    """How much of each voxel of the scan's padded latent every class fills (M-40); padding is the first's.

    Args:
        labels: on the scan's grid.
        known: the label of each class.

    Raises:
        InputError: there are labels that are no class's.
    """
    found, numbers = np.unique(labels, return_inverse=True)
    if unknown := sorted(set(found.tolist()) - set(known)):
        raise InputError(
            f"The mask has labels {', '.join(map(str, unknown))}; the model's ControlNet knows "
            f"{', '.join(map(str, known))}. Give the labels these numbers."
        )
    classes = np.array([list(known).index(label) for label in found.tolist()])[numbers.reshape(labels.shape)]
    working = torch.from_numpy(scan.grid.labels_to_working(classes))
    padded = F.pad(working, padding_amounts(scan))
    return mask_fractions(padded.unsqueeze(0), len(known), model.tokenizer.stride)[0]
