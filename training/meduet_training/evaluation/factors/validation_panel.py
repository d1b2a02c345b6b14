"""The validation panel: a few crops as they are, as the network returns them, and in each other's styles.

Axial slices as radiology shows them, front up and the patient's right on the left. A row is one content in
one window; its reconstruction, what that misses, and its swaps follow. Over each column of swaps stands the
crop that lent the style. What is drawn was computed elsewhere (validation.py).
"""

import textwrap
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from meduet_training.evaluation.factors.validation import ShownCrops
from meduet_training.evaluation.tiles import (
    FAINT,
    GAP,
    GROUND,
    INK,
    LABEL,
    MARGIN,
    TILE,
    WIDE_GAP,
    Window,
    coloured,
    grey,
    lettering,
    put_beside,
    put_caption,
    put_frame,
    window_of,
)
from napari_meduet.pipelines.swap.panel import CHANGE_SHARE, CT_WINDOWS

FULL_CHANGE_HU = {"soft tissue": 150, "lung": 500}  # at which the difference has its full colour
LUNG_HU, LUNG_SHARE = -500.0, 0.15  # a slice that holds so much of it is shown in the lung window too


@dataclass(frozen=True)
class _Row:
    """One content in one window.

    Attributes:
        words: beside it.
        full_change: at which the difference has its full colour.
        misses: the mean absolute error of the reconstruction in the body, in words.
    """

    content: int
    window: Window
    words: str
    full_change: float
    misses: str


def validation_panel(shown: ShownCrops, title: str, note: str) -> Image.Image:
    """All that is shown of one modality, with its words.

    Args:
        note: a sentence below the picture: where the crops come from.
    """
    num_styles = len(shown.domains)
    inputs, reconstructions, swaps = (
        _in_unit(units, shown) for units in (shown.inputs, shown.reconstructions, shown.swaps)
    )
    rows = _rows(inputs, reconstructions, shown)
    lefts = _lefts(num_styles)
    width = lefts[-1] + TILE + MARGIN
    head = MARGIN + 38
    top = head + TILE + GAP + 24
    sheet = Image.new("RGB", (width, top + len(rows) * (TILE + GAP) - GAP + MARGIN), GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 6), title, INK, lettering(22))
    legend = " ".join([*_legend(shown.modality), note])
    for number, line in enumerate(textwrap.wrap(legend, width=(lefts[3] - MARGIN - WIDE_GAP) // 8)):
        pen.text((MARGIN, head + 21 * number), line, FAINT, lettering(16))
    for k in range(num_styles):
        window = window_of(inputs[k], shown.modality)
        sheet.paste(grey(inputs[k], window), (lefts[3 + k], head))
        put_caption(pen, (lefts[3 + k], head), f"style {k + 1}")
    for left, caption in zip(lefts[:3], ("input", "reconstruction", "difference"), strict=True):
        pen.text((left, top - 22), caption, FAINT, lettering(16))
    pen.text((lefts[3], top - 22), "content of the row in the style above", FAINT, lettering(16))

    for row in rows:
        k = row.content
        tiles = [
            grey(inputs[k], row.window),
            grey(reconstructions[k], row.window),
            coloured(reconstructions[k] - inputs[k], row.full_change),
            *(grey(swap, row.window) for swap in swaps[k]),
        ]
        for left, tile in zip(lefts, tiles, strict=True):
            sheet.paste(tile, (left, top))
        put_frame(pen, (lefts[3 + k], top))
        put_caption(pen, (lefts[2], top), f"mean {row.misses}")
        put_beside(pen, (MARGIN, top), row.words)
        top += TILE + GAP
    return sheet


def _lefts(num_styles: int) -> list[int]:
    """Where the columns begin: input, reconstruction, difference, and after a gap a column for each style."""
    first = MARGIN + LABEL
    plain = [first + k * (TILE + GAP) for k in range(3)]
    swaps = plain[-1] + TILE + WIDE_GAP
    return plain + [swaps + k * (TILE + GAP) for k in range(num_styles)]


def _in_unit(units: np.ndarray, shown: ShownCrops) -> np.ndarray:
    """HU of CT; profile units of everything else."""
    return shown.ct_profile.decode(units) if shown.modality == "CT" else units


def _rows(inputs: np.ndarray, reconstructions: np.ndarray, shown: ShownCrops) -> list[_Row]:
    """One row for each content; a CT slice with lung in it has one in each window."""
    rows = []
    for k, domain in enumerate(shown.domains):
        body = shown.body[k] if shown.body[k].any() else np.ones_like(shown.body[k])
        error = float(np.abs(reconstructions[k] - inputs[k])[body].mean())
        name = f"{k + 1}  {domain}"
        if shown.modality == "CT":
            has_lung = (inputs[k][body] < LUNG_HU).mean() > LUNG_SHARE
            for window in CT_WINDOWS if has_lung else ("soft tissue",):
                full = FULL_CHANGE_HU[window]
                rows.append(_Row(k, CT_WINDOWS[window], f"{name}\n{window}", full, f"{error:.0f} HU"))
        else:
            low, high = window_of(inputs[k], shown.modality)
            rows.append(_Row(k, (low, high), name, CHANGE_SHARE * (high - low), f"{error:.3f}"))
    return rows


def _legend(modality: str | None) -> list[str]:
    """Sentences on what is seen."""
    windows = {
        "CT": "CT windows: "
        + ", ".join(f"{name} L {(a + b) / 2:.0f} W {b - a:.0f}" for name, (a, b) in CT_WINDOWS.items()),
        "MR": "MR: 1st to 99.5th percentile of the input",
        None: "Modality unknown: all of the intensity profile",
    }
    full = "half the window"
    if modality == "CT":
        full = " and ".join(f"{change} HU ({name})" for name, change in FULL_CHANGE_HU.items())
    return [
        "Axial slices through the middle of each crop, front up, the patient's right on the left; all "
        "decoded by the run's tokenizer, the input too.",
        f"{windows[modality]}; a row shares its window.",
        f"Difference: reconstruction minus input, blue below, orange above, full colour at {full}; its mean "
        "size in the body is written on it.",
        "Styles are those of the same crops; the framed swap is the content's own.",
    ]
