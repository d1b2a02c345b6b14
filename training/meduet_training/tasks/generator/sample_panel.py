"""The panel of a generator: held-out crops, and samples with the content of each in the style of each.

A row is one content; over each column of samples stands the crop that lent the style. All samples begin with
one noise. What is drawn was computed elsewhere (validation.py).
"""

import textwrap
from typing import TYPE_CHECKING

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
    grey,
    lettering,
    put_beside,
    put_caption,
    put_frame,
    window_of,
)

if TYPE_CHECKING:
    from meduet_training.tasks.generator.validation import SampleGrid

LEGEND = (
    "Axial slices through the middle of each sample, front up, the patient's right on the left. Content is "
    "given for every place (same anatomy), nothing is guided; the framed samples have content and style of "
    "one crop."
)


def sample_panel(grid: "SampleGrid", title: str, note: str) -> Image.Image:
    """All samples of one modality, with their words; each in the window of its style.

    Args:
        note: a sentence below the title: where the crops come from.
    """
    crops, samples = grid.crops, grid.samples
    if grid.modality == "CT":
        crops, samples = grid.ct_profile.decode(crops), grid.ct_profile.decode(samples)
    windows = [window_of(crop, grid.modality) for crop in crops]
    first = MARGIN + LABEL
    lefts = [first + TILE + WIDE_GAP + k * (TILE + GAP) for k in range(len(crops))]
    legend = textwrap.wrap(f"{LEGEND} {note}", width=(lefts[-1] + TILE - MARGIN) // 8)
    styles_top = MARGIN + 38 + 20 * len(legend)
    top = styles_top + TILE + GAP + 24
    height = top + len(crops) * (TILE + GAP) - GAP + MARGIN
    sheet = Image.new("RGB", (max(lefts[-1] + TILE + MARGIN, 480), height), GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 6), title, INK, lettering(22))
    for number, line in enumerate(legend):
        pen.text((MARGIN, MARGIN + 26 + 20 * number), line, FAINT, lettering(16))
    for k, left in enumerate(lefts):
        sheet.paste(grey(crops[k], windows[k]), (left, styles_top))
        put_caption(pen, (left, styles_top), f"style {k + 1}")
    pen.text((first, top - 22), "held-out crop", FAINT, lettering(16))
    pen.text((lefts[0], top - 22), "samples", FAINT, lettering(16))
    for k, domain in enumerate(grid.domains):
        put_beside(pen, (MARGIN, top), f"{k + 1}  {domain}")
        sheet.paste(grey(crops[k], windows[k]), (first, top))
        for m, left in enumerate(lefts):
            sheet.paste(grey(samples[k, m], windows[m]), (left, top))
        put_frame(pen, (lefts[k], top))
        top += TILE + GAP
    return sheet
