"""The lungs of a CT by a threshold: what a person would try before any network.

Air inside the body is the lungs, the airways and gas in the bowel. The two largest parts are the lungs, told
apart by the side they lie on; lungs that touch, or hang together by the airways, are parted where they are
narrowest. No other organ can be had by a threshold.
"""

from typing import cast

import nibabel as nib
import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects, label

from meduet_training.evaluation.metrics.masks import LUNG_HU
from napari_meduet.volumes.intensity import body_mask
from napari_meduet.volumes.volume import Volume

NAMES = {1: "lung_left", 2: "lung_right"}
CLOSING_MM = 5.0  # hand-drawn lungs hold their vessels
STEP_MM, LARGEST_STEPS = 2.0, 12  # by which lungs that hang together are worn down
SMALLEST_ML = 50.0  # less is gas in a bowel
SMALLER_SHARE = 0.2  # of the larger lung; less is no second lung


def threshold_lungs(scan: Volume) -> np.ndarray:
    """The lungs of a CT on its own grid: labels as in `NAMES`, uint8."""
    found = np.zeros(scan.voxels.shape, np.uint8)
    if scan.modality != "CT":
        return found
    orientation = nib.orientations.io_orientation(scan.affine)
    values = nib.orientations.apply_orientation(scan.values(), orientation)  # RAS order, as body_mask wants
    spacing = np.array(scan.spacing_mm)[np.argsort(orientation[:, 0])]
    body = body_mask(values, "CT")
    air = body & (values < LUNG_HU)
    boxes = find_objects(air.astype(np.uint8))
    if not boxes:
        return found
    ordered = np.zeros(values.shape, np.uint8)
    middle = float(np.flatnonzero(body.any(axis=(1, 2))).mean()) - boxes[0][0].start
    ordered[boxes[0]] = _lungs(air[boxes[0]], spacing, middle)
    back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), orientation)
    return np.ascontiguousarray(nib.orientations.apply_orientation(ordered, back))


def _lungs(air: np.ndarray, spacing_mm: np.ndarray, middle: float) -> np.ndarray:
    """Labels of the lungs in all air inside the body.

    Args:
        middle: of the body, along the first axis, which runs to the right.
    """
    cores = _cores(air, spacing_mm)
    labels = np.zeros(air.shape, np.uint8)
    if not cores:
        return labels
    places = [float(np.argwhere(core)[:, 0].mean()) for core in cores]
    if len(cores) == 1:
        sides = [2 if places[0] > middle else 1]
    else:
        sides = [2, 1] if places[0] > places[1] else [1, 2]
    for core, side in zip(cores, sides, strict=True):
        labels[core] = side
    whole = _parts_with(air, labels)
    nearest = distance_transform_edt(
        labels == 0, sampling=spacing_mm, return_distances=False, return_indices=True
    )
    nearest_labels = labels[tuple(cast(np.ndarray, nearest))]
    return np.where(_closed(whole, spacing_mm), nearest_labels, 0).astype(np.uint8)


def _cores(air: np.ndarray, spacing_mm: np.ndarray) -> list[np.ndarray]:
    """The one or two largest parts, worn down until the second is a lung too."""
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    depth = _depth(air, spacing_mm)
    whole: list[np.ndarray] = []
    for step in range(LARGEST_STEPS):
        parts, _ = _parts(depth > step * STEP_MM)
        sizes = np.bincount(parts.ravel())[1:] * voxel_ml
        order = np.argsort(sizes)[::-1][:2]
        if not len(order) or sizes[order[0]] < SMALLEST_ML:
            break
        if len(order) == 2 and sizes[order[1]] >= max(SMALLER_SHARE * sizes[order[0]], SMALLEST_ML):
            return [parts == part + 1 for part in order]
        whole = whole or [parts == order[0] + 1]
    return whole


def _parts_with(air: np.ndarray, cores: np.ndarray) -> np.ndarray:
    """The connected parts of the air that hold a core."""
    parts, count = _parts(air)
    kept = np.zeros(count + 1, bool)
    kept[np.unique(parts[cores > 0])] = True
    kept[0] = False
    return kept[parts]


def _closed(mask: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """A mask without its gaps and holes of less than twice the closing's distance."""
    room = [int(np.ceil(CLOSING_MM / step)) for step in spacing_mm]
    padded = np.pad(mask, [(width, width) for width in room])
    grown = _depth(~padded, spacing_mm) <= CLOSING_MM
    shrunk = _depth(grown, spacing_mm) > CLOSING_MM
    return shrunk[tuple(slice(width, -width) for width in room)] | mask


def _parts(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The connected parts of a mask, numbered from 1, and how many there are."""
    return cast(tuple[np.ndarray, int], label(mask))


def _depth(mask: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """How far each voxel of a mask is from the nearest outside it, in mm; 0 outside."""
    return cast(np.ndarray, distance_transform_edt(mask, sampling=spacing_mm))
