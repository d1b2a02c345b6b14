"""The panel of a segmenter: held-out crops, the truth over them, and what was found.

What is drawn was computed elsewhere (validation.py).
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from meduet_training.evaluation.tiles import (
    FAINT,
    GAP,
    GROUND,
    INK,
    LABEL,
    MARGIN,
    TILE,
    WIDE_GAP,
    as_tile,
    lettering,
    put_beside,
    window_of,
)
from napari_meduet.core.analysis.finetuning import IGNORED
from napari_meduet.pipelines.segmentation.label_colours import label_colour
from napari_meduet.volumes.volume import Modality

OPACITY = 0.5
UNKNOWN = np.array([0.25, 0.25, 0.3])  # where nobody looked
COLUMNS = ("crop", "truth", "found")
LEGEND = (
    "Axial slices through the middle of each crop, front up, the patient's right on the left. Where nobody "
    "looked, the truth is darkened."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledSlices:
    """The middle axial slice of a crop, (X, Y) in RAS+ order.

    Attributes:
        values: HU for CT, profile units for MR.
        truth, found: class numbers; `IGNORED` where nobody looked.
    """

    modality: Modality
    domain: str
    values: np.ndarray
    truth: np.ndarray
    found: np.ndarray


def label_panel(slices: Sequence[LabelledSlices], names: Sequence[str], title: str, note: str) -> Image.Image:
    """A row for each crop, with the classes that are seen and their colours below.

    Args:
        names: of the classes, the background first.
        note: a sentence below the title: where the crops come from.
    """
    lefts = [MARGIN + LABEL + k * (TILE + GAP) for k in range(len(COLUMNS))]
    width = lefts[-1] + TILE + MARGIN
    legend = textwrap.wrap(f"{LEGEND} {note}", width=(width - 2 * MARGIN) // 8)
    seen = sorted({int(k) for each in slices for k in np.unique([each.truth, each.found])} - {0, IGNORED})
    top = MARGIN + 38 + 20 * len(legend) + 24
    height = top + len(slices) * (TILE + GAP) + WIDE_GAP + 22 * -(-len(seen) // 2) + MARGIN
    sheet = Image.new("RGB", (width, height), GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 6), title, INK, lettering(22))
    for number, line in enumerate(legend):
        pen.text((MARGIN, MARGIN + 26 + 20 * number), line, FAINT, lettering(16))
    for name, left in zip(COLUMNS, lefts, strict=True):
        pen.text((left, top - 22), name, FAINT, lettering(16))
    for number, each in enumerate(slices, start=1):
        put_beside(pen, (MARGIN, top), f"{number}  {each.domain}")
        for classes, left in zip((None, each.truth, each.found), lefts, strict=True):
            sheet.paste(as_tile(_coloured(each, classes)), (left, top))
        top += TILE + GAP
    top += WIDE_GAP // 2
    for place, label in enumerate(seen):
        left, line = MARGIN + (place % 2) * (width // 2), top + 22 * (place // 2)
        pen.rectangle((left, line + 3, left + 14, line + 17), fill=label_colour(label))
        pen.text((left + 22, line), names[label], INK, lettering(16))
    return sheet


def _coloured(each: LabelledSlices, classes: np.ndarray | None) -> np.ndarray:
    """(X, Y, 3) from 0 to 1: the slice in its window, with classes over it."""
    low, high = window_of(each.values, each.modality)
    colours = np.repeat(np.clip((each.values - low) / (high - low), 0, 1)[..., None], 3, axis=2)
    if classes is None:
        return colours
    for label in np.unique(classes).tolist():
        if label:
            colour = UNKNOWN if label == IGNORED else np.array(label_colour(label)) / 255
            place = classes == label
            colours[place] = (1 - OPACITY) * colours[place] + OPACITY * colour
    return colours
