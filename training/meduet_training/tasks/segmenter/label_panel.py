"""The panel of a segmenter: held-out crops, their labels, and the predicted classes.

validation.py beside this file computes the slices; reporting/panels.py draws them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from meduet_training.reporting.palette import NOT_ANNOTATED
from meduet_training.reporting.panels import Row, Tile, draw_panel, tile_of, window_of
from napari_meduet.core.analysis.finetuning import IGNORED
from napari_meduet.pipelines.segmentation.label_colours import label_colour
from napari_meduet.volumes.volume import Modality

OPACITY = 0.5  # of a class over the slice
COLUMNS = ("crop", "truth", "prediction")
EXPLANATION = (
    "Axial slices through the middle of each crop, front up, the patient's right on the left. The truth is "
    "dark where voxels have no label."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledSlices:
    """The middle axial slice of a crop, (X, Y) in RAS+ order.

    Attributes:
        values: HU for CT, normalised intensity for MR.
        truth: class numbers; `IGNORED` where voxels have no label.
        predicted: class numbers.
    """

    modality: Modality
    domain: str
    values: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray


def label_panel(slices: Sequence[LabelledSlices], names: Sequence[str], title: str, note: str) -> Image.Image:
    """Draw a row for each crop, and a legend of the visible classes.

    Args:
        names: names of the classes, the background first.
        note: a sentence about the source of the crops.
    """
    rows = [
        Row(
            label=f"{number}  {each.domain}",
            tiles=[Tile(image=_overlay(each, classes)) for classes in (None, each.truth, each.predicted)],
        )
        for number, each in enumerate(slices, start=1)
    ]
    visible = {int(k) for each in slices for k in np.unique([each.truth, each.predicted])} - {0, IGNORED}
    legend = [(label_colour(label), names[label]) for label in sorted(visible)]
    return draw_panel(title, f"{EXPLANATION} {note}", rows, COLUMNS, legend=legend)


def _overlay(each: LabelledSlices, classes: np.ndarray | None) -> np.ndarray:
    """Return the tile of a slice in its window, with the colours of the classes over it."""
    low, high = window_of(each.values, each.modality)
    colours = np.repeat(np.clip((each.values - low) / (high - low), 0, 1)[..., None], 3, axis=2)
    if classes is not None:
        for label in np.unique(classes).tolist():
            if label:
                colour = NOT_ANNOTATED if label == IGNORED else np.array(label_colour(label)) / 255
                inside = classes == label
                colours[inside] = (1 - OPACITY) * colours[inside] + OPACITY * colour
    return tile_of(colours)
