"""Segmentation of the lungs in CT by a threshold, a baseline without training.

Air inside the body is in the lungs, the airways and the bowel. The two largest connected regions are the
lungs; the side of the body tells left from right. Lungs that touch, or that the airways connect, are
separated by erosion. No other organ can be segmented by a threshold.
"""

from typing import cast

import nibabel as nib
import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects, label

from meduet_training.evaluation.metrics.masks import LUNG_HU
from napari_meduet.volumes.intensity import body_mask
from napari_meduet.volumes.volume import Volume

NAMES = {1: "lung_left", 2: "lung_right"}
CLOSING_MM = 5.0  # fills the vessels, which manual lung labels include
STEP_MM, MAX_STEPS = 2.0, 12  # of the erosion that separates connected lungs
MIN_LUNG_ML = 50.0  # smaller regions are gas in the bowel
MIN_LUNG_RATIO = 0.2  # of the smaller lung to the larger one


def threshold_lungs(scan: Volume) -> np.ndarray:
    """Segment the lungs of a CT: labels as in `NAMES`, uint8, on the grid of the scan."""
    empty = np.zeros(scan.voxels.shape, np.uint8)
    if scan.modality != "CT":
        return empty
    orientation = nib.orientations.io_orientation(scan.affine)
    values = nib.orientations.apply_orientation(scan.values(), orientation)  # RAS order, as body_mask expects
    spacing = np.array(scan.spacing_mm)[np.argsort(orientation[:, 0])]
    body = body_mask(values, "CT")
    air = body & (values < LUNG_HU)
    boxes = find_objects(air.astype(np.uint8))
    if not boxes:
        return empty
    ordered = np.zeros(values.shape, np.uint8)
    middle = float(np.flatnonzero(body.any(axis=(1, 2))).mean()) - boxes[0][0].start
    ordered[boxes[0]] = _lungs(air[boxes[0]], spacing, middle)
    back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), orientation)
    return np.ascontiguousarray(nib.orientations.apply_orientation(ordered, back))


def _lungs(air: np.ndarray, spacing_mm: np.ndarray, middle: float) -> np.ndarray:
    """Return the labels of the lungs in the air inside the body.

    Args:
        middle: middle of the body along the first axis, which points to the right.
    """
    cores = _cores(air, spacing_mm)
    labels = np.zeros(air.shape, np.uint8)
    if not cores:
        return labels
    centres = [float(np.argwhere(core)[:, 0].mean()) for core in cores]
    if len(cores) == 1:
        sides = [2 if centres[0] > middle else 1]
    else:
        sides = [2, 1] if centres[0] > centres[1] else [1, 2]
    for core, side in zip(cores, sides, strict=True):
        labels[core] = side
    lungs = _regions_with(air, labels)
    nearest = distance_transform_edt(
        labels == 0, sampling=spacing_mm, return_distances=False, return_indices=True
    )
    nearest_labels = labels[tuple(cast(np.ndarray, nearest))]
    return np.where(_closed(lungs, spacing_mm), nearest_labels, 0).astype(np.uint8)


def _cores(air: np.ndarray, spacing_mm: np.ndarray) -> list[np.ndarray]:
    """Return the one or two largest regions, eroded until the second one is large enough to be a lung."""
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    depth = _depth(air, spacing_mm)
    largest: list[np.ndarray] = []
    for step in range(MAX_STEPS):
        regions, _ = _regions(depth > step * STEP_MM)
        sizes = np.bincount(regions.ravel())[1:] * voxel_ml
        order = np.argsort(sizes)[::-1][:2]
        if not len(order) or sizes[order[0]] < MIN_LUNG_ML:
            break
        if len(order) == 2 and sizes[order[1]] >= max(MIN_LUNG_RATIO * sizes[order[0]], MIN_LUNG_ML):
            return [regions == region + 1 for region in order]
        largest = largest or [regions == order[0] + 1]
    return largest


def _regions_with(air: np.ndarray, cores: np.ndarray) -> np.ndarray:
    """Return the connected regions of air that contain a core."""
    regions, count = _regions(air)
    is_kept = np.zeros(count + 1, bool)
    is_kept[np.unique(regions[cores > 0])] = True
    is_kept[0] = False
    return is_kept[regions]


def _closed(mask: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Close gaps and holes of a mask that are narrower than twice `CLOSING_MM`."""
    margins = [int(np.ceil(CLOSING_MM / step)) for step in spacing_mm]
    padded = np.pad(mask, [(width, width) for width in margins])
    grown = _depth(~padded, spacing_mm) <= CLOSING_MM
    shrunk = _depth(grown, spacing_mm) > CLOSING_MM
    return shrunk[tuple(slice(width, -width) for width in margins)] | mask


def _regions(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the connected regions of a mask, numbered from 1, and their number."""
    return cast(tuple[np.ndarray, int], label(mask))


def _depth(mask: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Return the distance of each voxel of a mask to the nearest voxel outside it, in mm; 0 outside."""
    return cast(np.ndarray, distance_transform_edt(mask, sampling=spacing_mm))
