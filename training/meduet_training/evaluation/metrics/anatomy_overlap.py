"""Dice of threshold masks of a generated crop and its content crop (R_D, specification, section 14)."""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from meduet_training.evaluation.metrics.masks import dice, threshold_masks, visible_masks
from napari_meduet.volumes.intensity import CT_FULL, IntensityProfile
from napari_meduet.volumes.preparation import WORKING_SPACING_MM
from napari_meduet.volumes.volume import UNITS, Modality, Volume

MR_RANGE = 1000.0  # any number: MR has no unit, and its masks depend on fractions of its range


def anatomy_overlap(
    content: Float[Tensor, "X Y Z"],
    result: Float[Tensor, "X Y Z"],
    modality: Modality,
    ct_profile: IntensityProfile = CT_FULL,
) -> dict[str, float]:
    """Return the Dice of each mask that is large enough in the content crop.

    Masks are body, lung and bone for CT, and the foreground for MR. Both crops are smoothed by 1.5 mm before
    the thresholds, because a latent holds no noise and noise changes the mask of a single voxel.

    Args:
        content, result: normalised intensity.
        ct_profile: the intensity profile of CT crops.
    """
    before, after = (_volume(crop, modality, ct_profile) for crop in (content, result))
    own, other = threshold_masks(before, smoothed=True), threshold_masks(after, smoothed=True)
    return {name: dice(own[name], other[name]) for name in visible_masks(before)}


def _volume(crop: Float[Tensor, "X Y Z"], modality: Modality, ct_profile: IntensityProfile) -> Volume:
    values = crop.float().numpy()
    return Volume(
        voxels=ct_profile.decode(values) if modality == "CT" else values * np.float32(MR_RANGE),
        affine=np.diag([*[WORKING_SPACING_MM] * 3, 1.0]),
        modality=modality,
        unit=UNITS[modality],
        sha256="",
    )
