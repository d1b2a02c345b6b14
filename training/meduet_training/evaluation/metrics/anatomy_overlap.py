"""Whether a generated crop shows the anatomy it was asked for: Dice of thresholded masks (R_D, specification, section 14)."""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from meduet_training.evaluation.metrics.masks import dice, shown_in, thresholded
from napari_meduet.volumes.intensity import CT_FULL
from napari_meduet.volumes.preparation import WORKING_SPACING_MM
from napari_meduet.volumes.volume import UNITS, Modality, Volume

MR_RANGE = 1000.0  # MR has no unit; masks are of shares of its range


def anatomy_overlap(
    content: Float[Tensor, "X Y Z"], result: Float[Tensor, "X Y Z"], modality: Modality
) -> dict[str, float]:
    """Dice of each mask of which the content shows enough: body, lung, bone of CT; the foreground of MR.

    Both are smoothed by 1.5 mm before the thresholds, so that noise, which no latent holds, does not choose.

    Args:
        content, result: profile units; CT's are those of `CT_FULL`.
    """
    before, after = _volume(content, modality), _volume(result, modality)
    own, other = thresholded(before, smoothed=True), thresholded(after, smoothed=True)
    return {name: dice(own[name], other[name]) for name in shown_in(before)}


def _volume(units: Float[Tensor, "X Y Z"], modality: Modality) -> Volume:
    values = units.float().numpy()
    return Volume(
        voxels=CT_FULL.decode(values) if modality == "CT" else values * np.float32(MR_RANGE),
        affine=np.diag([*[WORKING_SPACING_MM] * 3, 1.0]),
        modality=modality,
        unit=UNITS[modality],
        sha256="",
    )
