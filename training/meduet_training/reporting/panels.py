"""Panels: tiles in rows and columns with labels, captions and a legend, drawn by matplotlib.

The file knows how a panel looks. What a panel shows is chosen by the files that call `draw_panel`:
validation_panel.py, segmentation_pictures.py and synthesis_pictures.py beside this file,
tasks/generator/sample_panel.py and tasks/segmenter/label_panel.py. A slice becomes a tile as radiology shows
it: front up, the patient's right on the left.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.transforms import IdentityTransform
from PIL import Image

from meduet_training.reporting.palette import FAINT, FRAME, GROUND, INK, LESS, MORE
from napari_meduet.volumes.display_windows import CT_WINDOWS, MR_PERCENTILES

TILE = 168  # pixels
GAP, WIDE_GAP, MARGIN = 6, 24, 20  # pixels
LABEL = 176  # pixels of the column with the labels of the rows
TITLE, LINE = 38, 20  # pixels of the title and of a line of text
CHARACTER = 8  # pixels of a character of normal text, on average
TITLE_SIZE, TEXT_SIZE, CAPTION_SIZE = 18, 13, 12  # pixels, because a panel has 72 dots per inch

TEXT: dict[str, Any] = {"size": TEXT_SIZE, "va": "top", "linespacing": LINE / TEXT_SIZE / 1.2}

Colour = tuple[int, int, int]
Window = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One picture of a panel.

    Attributes:
        image: uint8 colours (rows, columns, 3).
        caption: text in the lower left corner of the tile.
    """

    image: np.ndarray
    caption: str = ""
    is_framed: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """Tiles beside each other; the first line of the label is bright, the others are faint."""

    tiles: Sequence[Tile]
    label: str = ""


def window_of(values: np.ndarray, modality: str | None) -> Window:
    """Return the intensities shown as black and white.

    CT is shown in the soft-tissue window, MR between two percentiles of the slice, and a slice of unknown
    modality over the range of the intensity profile.
    """
    if modality == "CT":
        return CT_WINDOWS["soft tissue"]
    if modality is None:
        return 0.0, 1.0
    low, high = np.percentile(values, MR_PERCENTILES)
    return float(low), float(max(high, low + 1e-3))


def grey(values: np.ndarray, window: Window) -> np.ndarray:
    """Return the grey tile (rows, columns, 3) of a slice (X, Y) in a window."""
    low, high = window
    return tile_of(np.repeat(np.clip((values - low) / (high - low), 0, 1)[..., None], 3, axis=2))


def coloured(change: np.ndarray, full: float) -> np.ndarray:
    """Return the tile (rows, columns, 3) of a signed difference (X, Y): blue below 0, orange above.

    Args:
        full: size of a difference with full colour.
    """
    fraction = np.clip(change / full, -1, 1)[..., None]
    return tile_of(np.where(fraction < 0, -fraction * LESS, fraction * MORE))


def tile_of(colours: np.ndarray) -> np.ndarray:
    """Return colours (X, Y, 3) from 0 to 1 in RAS+ order as uint8 rows from front to back."""
    return np.rint(255 * colours[::-1, ::-1]).astype(np.uint8).transpose(1, 0, 2)


def draw_panel(
    title: str,
    note: str,
    rows: Sequence[Row],
    columns: Sequence[str],
    *,
    header: Sequence[Tile] = (),
    legend: Sequence[tuple[Colour, str]] = (),
    wide_gap_after: int | None = None,
    tile_width: int = TILE,
) -> Image.Image:
    """Draw a panel.

    Args:
        note: explanation, left of the header or, without a header, below the title.
        columns: captions of the columns. A caption extends over the empty captions that follow it.
        header: tiles above the last columns.
        legend: colour and name of each class.
        wide_gap_after: number of columns before a wide gap. None: all gaps are equal.
        tile_width: pixels.
    """
    split = len(columns) if wide_gap_after is None else wide_gap_after
    widths = [tile_width] * len(columns)
    if split < len(columns):
        widths.insert(split, WIDE_GAP - 2 * GAP)  # an empty column between two gaps
    heights = [round(tile_width * row.tiles[0].image.shape[0] / row.tiles[0].image.shape[1]) for row in rows]
    left = MARGIN + LABEL * any(row.label for row in rows)
    right = left + sum(widths) + GAP * (len(widths) - 1)
    header_left = right - len(header) * (tile_width + GAP) + GAP
    note_right = header_left - WIDE_GAP if header else right
    note_lines = textwrap.wrap(note, width=(note_right - MARGIN) // CHARACTER)
    captions = _wrapped_captions(columns, tile_width)
    head = MARGIN + TITLE
    top = head + 4 + LINE * max(len(each.splitlines()) for each in captions)
    top += tile_width + GAP if header else LINE * len(note_lines)
    bottom = top + sum(heights) + GAP * (len(heights) - 1)
    entry = CHARACTER * max((len(name) for _, name in legend), default=0) + 3 * LINE
    num_legend_columns = max(1, (right - MARGIN) // entry)
    legend_height = WIDE_GAP + LINE * math.ceil(len(legend) / num_legend_columns) if legend else 0

    width, height = right + MARGIN, bottom + legend_height + MARGIN
    figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor=_rgb(GROUND))
    canvas = FigureCanvasAgg(figure)
    figure.text(MARGIN / width, 1 - (MARGIN - 6) / height, title, size=TITLE_SIZE, color=_rgb(INK), va="top")
    figure.text(MARGIN / width, 1 - head / height, "\n".join(note_lines), color=_rgb(FAINT), **TEXT)
    if header:
        grid = figure.add_gridspec(
            1,
            len(header),
            left=header_left / width,
            right=right / width,
            top=1 - head / height,
            bottom=1 - (head + tile_width) / height,
            wspace=GAP / tile_width,
        )
        for tile, axes in zip(header, grid.subplots(squeeze=False)[0], strict=True):
            _draw_tile(axes, tile)
    grid = figure.add_gridspec(
        len(rows),
        len(widths),
        left=left / width,
        right=right / width,
        top=1 - top / height,
        bottom=1 - bottom / height,
        wspace=GAP * len(widths) / sum(widths),
        hspace=GAP * len(heights) / sum(heights),
        width_ratios=widths,
        height_ratios=heights,
    )
    for k, row in enumerate(rows):
        for m, tile in enumerate(row.tiles):
            axes = figure.add_subplot(grid[k, m + (m >= split)])
            _draw_tile(axes, tile)
            if k == 0:
                axes.set_title(captions[m], loc="left", size=TEXT_SIZE, color=_rgb(FAINT), pad=5)
            if m == 0:
                _label_row(axes, row.label)
    if legend:
        figure.legend(
            handles=[Patch(color=_rgb(colour), label=name) for colour, name in legend],
            loc="upper left",
            bbox_to_anchor=(MARGIN / width, 1 - (bottom + WIDE_GAP // 2) / height),
            ncols=num_legend_columns,
            fontsize=TEXT_SIZE,
            labelcolor=_rgb(INK),
            frameon=False,
            borderpad=0,
            borderaxespad=0,
            handlelength=1,
            handleheight=1,
        )
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _wrapped_captions(columns: Sequence[str], tile_width: int) -> list[str]:
    captions = []
    for k, words in enumerate(columns):
        following = next((n for n, other in enumerate(columns[k + 1 :]) if other), len(columns) - k - 1)
        captions.append(textwrap.fill(words, width=(following + 1) * tile_width // CHARACTER))
    return captions


def _draw_tile(axes: Axes, tile: Tile) -> None:
    axes.imshow(tile.image, interpolation="bicubic", aspect="auto")
    axes.set_axis_off()
    if tile.caption:
        box = {"facecolor": _rgb(GROUND), "edgecolor": "none", "pad": 3}
        axes.annotate(
            tile.caption, (8, 8), xycoords="axes pixels", size=CAPTION_SIZE, color=_rgb(INK), bbox=box
        )
    if tile.is_framed:
        place = axes.get_window_extent()
        frame = Rectangle(
            (round(place.x0) - 2, round(place.y0) - 2), round(place.width) + 4, round(place.height) + 4
        )
        frame.set(transform=IdentityTransform(), facecolor=_rgb(FRAME), antialiased=False, zorder=-1)
        axes.figure.add_artist(frame)


def _label_row(axes: Axes, label: str) -> None:
    """Write the label left of the first tile of a row."""
    top = 0
    for number, paragraph in enumerate(label.split("\n")):
        lines = textwrap.wrap(paragraph, width=LABEL // CHARACTER - 1)
        axes.annotate(
            "\n".join(lines),
            (0, 1),
            (-LABEL, top),
            xycoords="axes fraction",
            textcoords="offset pixels",
            color=_rgb(FAINT if number else INK),
            **TEXT,
        )
        top -= LINE * len(lines)


def _rgb(colour: Colour) -> tuple[float, float, float]:
    red, green, blue = (level / 255 for level in colour)
    return red, green, blue
