"""The parts that pictures of a run are put together from: slices as tiles, and words on and beside them.

A tile is an axial slice as radiology shows it: front up, the patient's right on the left.
"""

import textwrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from napari_meduet.pipelines.swap.panel import CT_WINDOWS, LESS, MORE, MR_PERCENTILES

TILE = 168  # pixels
GAP, WIDE_GAP, MARGIN = 6, 24, 20
LABEL = 176  # pixels of a row's words
INK, FAINT, GROUND, FRAME = (236, 236, 236), (158, 158, 162), (16, 16, 18), (205, 205, 210)

Window = tuple[float, float]


def window_of(values: np.ndarray, modality: str | None) -> Window:
    """Soft tissue for CT, percentiles of the slice for MR, the whole profile where nothing is known."""
    if modality == "CT":
        return CT_WINDOWS["soft tissue"]
    if modality is None:
        return 0.0, 1.0
    low, high = np.percentile(values, MR_PERCENTILES)
    return float(low), float(max(high, low + 1e-3))


def grey(values: np.ndarray, window: Window) -> Image.Image:
    low, high = window
    grey = np.clip((values - low) / (high - low), 0, 1)
    return as_tile(np.repeat(grey[..., None], 3, axis=2))


def coloured(change: np.ndarray, full: float) -> Image.Image:
    share = np.clip(change / full, -1, 1)[..., None]
    return as_tile(np.where(share < 0, -share * LESS, share * MORE))


def as_tile(colours: np.ndarray) -> Image.Image:
    """(X, Y, 3) in RAS+ order as a picture: rows run from front to back, columns from right to left."""
    picture = np.rint(255 * colours[::-1, ::-1]).astype(np.uint8).transpose(1, 0, 2)
    return Image.fromarray(picture).resize((TILE, TILE), Image.Resampling.BICUBIC)


def put_caption(pen: ImageDraw.ImageDraw, corner: tuple[int, int], words: str) -> None:
    """Words in the lower left of a tile, legible on any grey."""
    font, (left, top) = lettering(15), corner
    box = pen.textbbox((left + 5, top + TILE - 22), words, font=font)
    pen.rectangle((box[0] - 3, box[1] - 2, box[2] + 3, box[3] + 2), fill=GROUND)
    pen.text((left + 5, top + TILE - 22), words, INK, font)


def put_beside(pen: ImageDraw.ImageDraw, corner: tuple[int, int], words: str) -> None:
    """The words of a row, wrapped into their column; the first paragraph bright."""
    left, top = corner
    for number, paragraph in enumerate(words.split("\n")):
        for line in textwrap.wrap(paragraph, width=LABEL // 8 - 1):
            pen.text((left, top), line, FAINT if number else INK, lettering(16))
            top += 18
        top += 4


def put_frame(pen: ImageDraw.ImageDraw, corner: tuple[int, int]) -> None:
    left, top = corner
    pen.rectangle((left - 2, top - 2, left + TILE + 1, top + TILE + 1), outline=FRAME, width=2)


def lettering(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
