"""A test scan as everyone segmented it, side by side: planes through what the truth holds, as PNG."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from meduet_training.data.labels.task import LabelTask
from meduet_training.evaluation.segmentation.evaluate import Segmented
from meduet_training.evaluation.tiles import FAINT, GAP, GROUND, INK, MARGIN, WIDE_GAP, lettering
from napari_meduet.core.analysis.finetuning import IGNORED
from napari_meduet.pipelines.segmentation.label_colours import label_colour
from napari_meduet.pipelines.segmentation.label_overlay import fullest_places, plane_picture
from napari_meduet.volumes.files import write_atomically

AXIAL, CORONAL = 2, 1
COLUMN = 320  # pixels
LINE, SWATCH = 22, 14
NOTE = (
    "Axial and coronal plane with most of what the truth holds, as radiology shows them: the patient's right "
    "on the left. Structures that the truth does not name may be right and are not judged."
)


def write_segmentation_picture(segmented: Segmented, task: LabelTask, folder: Path) -> Path:
    """`scan_1.png` and so on: the scan, its truth, and a column for each method."""
    numbers = np.zeros(IGNORED + 1, np.int32)  # by class; where nobody looked, as nothing
    numbers[: len(task.labels)] = task.labels
    truth = numbers[segmented.truth]
    found = {method: numbers[classes] for method, classes in segmented.found.items()}
    columns = {"scan": np.zeros_like(truth), "truth": truth, **found}
    places = fullest_places(segmented.volume, truth)
    rows = [
        [
            _narrowed(plane_picture(segmented.volume, labels, axis, places[axis]))
            for labels in columns.values()
        ]
        for axis in (AXIAL, CORONAL)
    ]
    title = f"scan {segmented.number}  {segmented.scan.first.domain}"
    shown = {int(label) for labels in columns.values() for label in np.unique(labels)} - {0}
    judged = task.meaning(segmented.scan.names).annotated
    legend = [
        (label, name if is_judged else f"{name} (not in the truth)")
        for label, name, is_judged in zip(task.labels, task.names, judged, strict=True)
        if label in shown
    ]
    path = folder / f"scan_{segmented.number}.png"
    with write_atomically(path, overwrite=True) as temporary:
        _sheet(title, list(columns), rows, legend).save(temporary, format="PNG")
    return path


def _narrowed(picture: Image.Image) -> Image.Image:
    height = round(picture.height * COLUMN / picture.width)
    return picture.resize((COLUMN, height), Image.Resampling.LANCZOS)


def _sheet(
    title: str,
    captions: Sequence[str],
    rows: Sequence[Sequence[Image.Image]],
    legend: Sequence[tuple[int, str]],
) -> Image.Image:
    width = 2 * MARGIN + len(captions) * (COLUMN + GAP) - GAP
    words = textwrap.wrap(NOTE, width=(width - 2 * MARGIN) // 8)
    top = MARGIN + 38 + 20 * len(words) + LINE
    heights = [row[0].height for row in rows]
    entry = max(round(lettering(16).getlength(name)) for _, name in legend) + SWATCH + WIDE_GAP + GAP
    in_a_line = max(1, (width - 2 * MARGIN) // entry)
    lines = math.ceil(len(legend) / in_a_line)
    height = top + sum(heights) + GAP * len(rows) + GAP + LINE * lines + MARGIN
    sheet = Image.new("RGB", (width, height), GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 6), title, INK, lettering(22))
    for number, line in enumerate(words):
        pen.text((MARGIN, MARGIN + 26 + 20 * number), line, FAINT, lettering(16))
    for number, caption in enumerate(captions):
        pen.text((MARGIN + number * (COLUMN + GAP), top - LINE), caption, INK, lettering(16))
    for row, tall in zip(rows, heights, strict=True):
        for number, picture in enumerate(row):
            sheet.paste(picture, (MARGIN + number * (COLUMN + GAP), top))
        top += tall + GAP
    for number, (label, name) in enumerate(legend):
        left, line = MARGIN + number % in_a_line * entry, top + GAP + LINE * (number // in_a_line)
        pen.rectangle((left, line + 3, left + SWATCH, line + 3 + SWATCH), fill=label_colour(label))
        pen.text((left + SWATCH + GAP, line), name, INK, lettering(16))
    return sheet
