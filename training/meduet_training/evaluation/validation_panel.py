"""The validation panel: a few crops as they are, as the network returns them, and in each other's styles.

Axial slices as radiology shows them, front up and the patient's right on the left. A row is one content in
one window; its reconstruction, what that misses, and its swaps follow. Over each column of swaps stands the
crop that lent the style. What is drawn was computed elsewhere (validation.py).
"""

import textwrap
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from meduet_training.evaluation.validation import ShownCrops
from napari_meduet.pipelines.panel import CHANGE_SHARE, CT_WINDOWS, LESS, MORE, MR_PERCENTILES

TILE = 168  # pixels
GAP, WIDE_GAP, MARGIN = 6, 24, 20
LABEL = 176  # pixels of a row's words
INK, FAINT, GROUND, FRAME = (236, 236, 236), (158, 158, 162), (16, 16, 18), (205, 205, 210)
FULL_CHANGE_HU = {"soft tissue": 150, "lung": 500}  # at which the difference has its full colour
LUNG_HU, LUNG_SHARE = -500.0, 0.15  # a slice that holds so much of it is shown in the lung window too

Window = tuple[float, float]


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
    pen.text((MARGIN, MARGIN - 6), title, INK, _font(22))
    legend = " ".join([*_legend(shown.modality), note])
    for number, line in enumerate(textwrap.wrap(legend, width=(lefts[3] - MARGIN - WIDE_GAP) // 8)):
        pen.text((MARGIN, head + 21 * number), line, FAINT, _font(16))
    for k in range(num_styles):
        window = _window(inputs[k], shown.modality)
        sheet.paste(_grey(inputs[k], window), (lefts[3 + k], head))
        _caption(pen, (lefts[3 + k], head), f"style {k + 1}")
    for left, caption in zip(lefts[:3], ("input", "reconstruction", "difference"), strict=True):
        pen.text((left, top - 22), caption, FAINT, _font(16))
    pen.text((lefts[3], top - 22), "content of the row in the style above", FAINT, _font(16))

    for row in rows:
        k = row.content
        tiles = [
            _grey(inputs[k], row.window),
            _grey(reconstructions[k], row.window),
            _coloured(reconstructions[k] - inputs[k], row.full_change),
            *(_grey(swap, row.window) for swap in swaps[k]),
        ]
        for left, tile in zip(lefts, tiles, strict=True):
            sheet.paste(tile, (left, top))
        _frame(pen, (lefts[3 + k], top))
        _caption(pen, (lefts[2], top), f"mean {row.misses}")
        _beside(pen, (MARGIN, top), row.words)
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
            low, high = _window(inputs[k], shown.modality)
            rows.append(_Row(k, (low, high), name, CHANGE_SHARE * (high - low), f"{error:.3f}"))
    return rows


def _window(values: np.ndarray, modality: str | None) -> Window:
    """Soft tissue for CT, percentiles of the slice for MR, the whole profile where nothing is known."""
    if modality == "CT":
        return CT_WINDOWS["soft tissue"]
    if modality is None:
        return 0.0, 1.0
    low, high = np.percentile(values, MR_PERCENTILES)
    return float(low), float(max(high, low + 1e-3))


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


def _grey(values: np.ndarray, window: Window) -> Image.Image:
    low, high = window
    grey = np.clip((values - low) / (high - low), 0, 1)
    return _tile(np.repeat(grey[..., None], 3, axis=2))


def _coloured(change: np.ndarray, full: float) -> Image.Image:
    share = np.clip(change / full, -1, 1)[..., None]
    return _tile(np.where(share < 0, -share * LESS, share * MORE))


def _tile(colours: np.ndarray) -> Image.Image:
    """(X, Y, 3) in RAS+ order as a picture: rows run from front to back, columns from right to left."""
    picture = np.rint(255 * colours[::-1, ::-1]).astype(np.uint8).transpose(1, 0, 2)
    return Image.fromarray(picture).resize((TILE, TILE), Image.Resampling.BICUBIC)


def _caption(pen: ImageDraw.ImageDraw, corner: tuple[int, int], words: str) -> None:
    """Words in the lower left of a tile, legible on any grey."""
    font, (left, top) = _font(15), corner
    box = pen.textbbox((left + 5, top + TILE - 22), words, font=font)
    pen.rectangle((box[0] - 3, box[1] - 2, box[2] + 3, box[3] + 2), fill=GROUND)
    pen.text((left + 5, top + TILE - 22), words, INK, font)


def _beside(pen: ImageDraw.ImageDraw, corner: tuple[int, int], words: str) -> None:
    """The words of a row, wrapped into their column; the first paragraph bright."""
    left, top = corner
    for number, paragraph in enumerate(words.split("\n")):
        for line in textwrap.wrap(paragraph, width=LABEL // 8 - 1):
            pen.text((left, top), line, FAINT if number else INK, _font(16))
            top += 18
        top += 4


def _frame(pen: ImageDraw.ImageDraw, corner: tuple[int, int]) -> None:
    left, top = corner
    pen.rectangle((left - 2, top - 2, left + TILE + 1, top + TILE + 1), outline=FRAME, width=2)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
