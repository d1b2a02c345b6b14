"""A picture of a swap for people without a viewer: content, style, result and what changed, side by side.

Slices are shown as radiology shows them (the patient's right on the left, front up), at their physical
aspect: CT in its windows, MR between the percentiles of content and style; a result has its content's window.
"""

import math
import textwrap
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from napari_meduet.pipelines.common.picture_colours import FAINT, GROUND, INK
from napari_meduet.volumes import display_windows
from napari_meduet.volumes.display_windows import MR_PERCENTILES
from napari_meduet.volumes.volume import Volume

CT_WINDOWS = {name: display_windows.CT_WINDOWS[name] for name in ("soft tissue", "lung")}
CHANGE_HU = 150.0  # full colour of the difference
CHANGE_SHARE = 0.5  # the same for MR, of the content's window
PIXEL_MM = 1.1
DETAIL, DETAIL_LEFT, DETAIL_TOP = 3, 0.33, 0.6  # a third of the slice: spine and muscle, back of the brain
GAP, MARGIN, LINE = 8, 16, 22
LESS, MORE = np.array([0.3, 0.6, 1.0]), np.array([1.0, 0.6, 0.2])  # blue and orange: told apart by everyone

Window = tuple[float, float]


def swap_panel(content: Volume, style: Volume, result: Volume, title: str, footer: str) -> Image.Image:
    """The middle axial slices of a swap, one row per view."""
    before, other, after = (_axial(volume) for volume in (content, style, result))
    change = _Slice(after.values - before.values, before.pixel_mm)
    rows, labels = [], []
    for name, own_window, style_window, is_zoomed in _views(content, style):
        pictures = [
            _grey(before, own_window),
            _grey(other, style_window),
            _grey(after, own_window),
            _coloured(change, _full_change(content, own_window)),
        ]
        rows.append([_zoomed(picture) if is_zoomed else picture for picture in pictures])
        labels.append(name)
    full = _full_change(content, _views(content, style)[0][1])
    unit = " HU" if content.modality == "CT" else ""
    captions = ["content", "style", "result", f"change: blue -{full:.0f}{unit}, orange +{full:.0f}{unit}"]
    return _framed(rows, captions, labels, title, footer)


@dataclass(frozen=True)
class _Slice:
    values: np.ndarray  # (rows, columns): front up, the patient's right on the left
    pixel_mm: tuple[float, float]  # between rows, between columns


def _axial(volume: Volume) -> _Slice:
    """The middle axial slice as a picture shows it."""
    orientation = nib.orientations.io_orientation(volume.affine)
    values = nib.orientations.apply_orientation(volume.values(), orientation)  # RAS order
    right, anterior, _ = (volume.spacing_mm[int(axis)] for axis in np.argsort(orientation[:, 0]))
    return _Slice(values[::-1, ::-1, values.shape[2] // 2].T, (anterior, right))


def _views(content: Volume, style: Volume) -> list[tuple[str, Window, Window, bool]]:
    """Rows of the panel: name, window of content and result, window of the style, whether it is a detail."""
    if content.modality == "CT":
        soft, lung = CT_WINDOWS["soft tissue"], CT_WINDOWS["lung"]
        return [
            ("soft tissue", soft, soft, False),
            ("soft tissue, detail", soft, soft, True),
            ("lung", lung, lung, False),
        ]
    own, other = _percentiles(content), _percentiles(style)
    return [("slice", own, other, False), ("detail", own, other, True)]


def _full_change(content: Volume, window: Window) -> float:
    return CHANGE_HU if content.modality == "CT" else CHANGE_SHARE * (window[1] - window[0])


def _percentiles(volume: Volume) -> Window:
    low, high = np.percentile(volume.values(), MR_PERCENTILES)
    return float(low), float(max(high, low + 1))


def _grey(picture: _Slice, window: Window) -> Image.Image:
    low, high = window
    grey = np.clip((picture.values - low) / (high - low), 0, 1)
    return _at_scale(np.repeat(grey[..., None], 3, axis=2), picture.pixel_mm)


def _coloured(picture: _Slice, full: float) -> Image.Image:
    share = np.clip(picture.values / full, -1, 1)[..., None]
    return _at_scale(np.where(share < 0, -share * LESS, share * MORE), picture.pixel_mm)


def _at_scale(colours: np.ndarray, pixel_mm: tuple[float, float]) -> Image.Image:
    """Colours in [0, 1] as a picture of square pixels."""
    image = Image.fromarray(np.rint(255 * colours).astype(np.uint8))
    rows, columns = colours.shape[:2]
    size = round(columns * pixel_mm[1] / PIXEL_MM), round(rows * pixel_mm[0] / PIXEL_MM)
    return image.resize(size, Image.Resampling.BICUBIC)


def _zoomed(picture: Image.Image) -> Image.Image:
    """A third of a picture along each side, as large as the whole."""
    width, height = picture.size
    left, top = round(width * DETAIL_LEFT), round(height * DETAIL_TOP)
    box = (left, top, left + width // DETAIL, top + height // DETAIL)
    return picture.resize((width, height), Image.Resampling.BICUBIC, box=box)


def _framed(
    rows: list[list[Image.Image]], captions: list[str], labels: list[str], title: str, footer: str
) -> Image.Image:
    """Pictures in rows and columns, with captions above and words around."""
    large, small = ImageFont.load_default(20), ImageFont.load_default(15)
    widths = [
        max(math.ceil(small.getlength(caption)), *(row[column].width for row in rows))
        for column, caption in enumerate(captions)
    ]
    heights = [max(picture.height for picture in row) for row in rows]
    words = textwrap.wrap(footer, width=max(20, sum(widths) // 8))
    head, foot = MARGIN + 2 * LINE + GAP, MARGIN + LINE * len(words)
    size = (2 * MARGIN + sum(widths) + GAP * (len(widths) - 1), head + sum(heights) + GAP * len(rows) + foot)
    sheet = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN // 2), title, INK, large)
    top = head
    for row, height, label in zip(rows, heights, labels, strict=True):
        left = MARGIN
        for picture, width, caption in zip(row, widths, captions, strict=True):
            sheet.paste(picture, (left + (width - picture.width) // 2, top + (height - picture.height) // 2))
            if top == head:
                draw.text((left, head - LINE), caption, FAINT, small)
            left += width + GAP
        draw.text((MARGIN + 4, top + 4), label, INK, small)
        top += height + GAP
    for number, line in enumerate(words):
        draw.text((MARGIN, top + LINE * number), line, FAINT, small)
    return sheet
