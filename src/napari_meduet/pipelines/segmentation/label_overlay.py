"""A picture of a segmentation for people without a viewer: three planes of the scan, its labels in colour.

The planes pass through the middle of what was found, at their physical aspect and as radiology shows them:
the patient's right on the left, front and head up. Names and millilitres stand beside the colours.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from napari_meduet.pipelines.common.picture_colours import FAINT, GROUND, INK
from napari_meduet.pipelines.segmentation.label_colours import label_colour
from napari_meduet.pipelines.segmentation.label_statistics import LabelVolume
from napari_meduet.volumes.display_windows import MR_PERCENTILES
from napari_meduet.volumes.volume import Volume

CT_WINDOW = (-450.0, 450.0)  # soft tissue with its contrasts, and lungs that are not quite black
PIXEL_MM = 0.8
TINT = 0.4  # of a label's colour inside it; its outline is all colour
GAP, MARGIN, LINE, SWATCH = 10, 16, 22, 14


def overlay_picture(
    volume: Volume, labels: np.ndarray, names: Mapping[int, str], found: Mapping[int, LabelVolume]
) -> Image.Image:
    """Axial, coronal and sagittal plane with the labels over them, and a legend.

    Args:
        labels: (X, Y, Z) on the scan's own grid.
    """
    places = fullest_places(volume, labels)
    planes = [plane_picture(volume, labels, axis, places[axis]) for axis in (2, 1, 0)]
    return _sheet(planes, _legend(names, found))


def plane_picture(volume: Volume, labels: np.ndarray, axis: int, place: int) -> Image.Image:
    """One plane of a scan with labels (X, Y, Z) over it.

    Args:
        axis: that it is across: 0 sagittal, 1 coronal, 2 axial.
        place: of the plane along it, in RAS order.
    """
    scan = _RASOrder.of(volume.affine)
    low, high = _window(volume)
    grey = (volume.in_unit(np.take(scan.view(volume.voxels), place, axis)) - low) / (high - low)
    shown = _coloured(np.clip(grey, 0, 1), np.take(scan.view(labels), place, axis))
    sides = [mm for other, mm in enumerate(scan.spacing_mm(volume)) if other != axis]
    return _upright(shown, (sides[0], sides[1]))


def fullest_places(volume: Volume, labels: np.ndarray) -> list[int]:
    """Along each axis in RAS order the plane with the most labels; the middle one where there are none."""
    ordered = _RASOrder.of(volume.affine).view(labels)
    places = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        counts = np.count_nonzero(ordered, axis=others)
        places.append(int(counts.argmax()) if counts.any() else ordered.shape[axis] // 2)
    return places


@dataclass(frozen=True)
class _RASOrder:
    """How the voxel axes of a scan turn into right, anterior, superior."""

    orientation: np.ndarray

    @classmethod
    def of(cls, affine: np.ndarray) -> "_RASOrder":
        return cls(nib.orientations.io_orientation(affine))

    def view(self, voxels: np.ndarray) -> np.ndarray:
        return nib.orientations.apply_orientation(voxels, self.orientation)

    def spacing_mm(self, volume: Volume) -> list[float]:
        return [volume.spacing_mm[int(axis)] for axis in np.argsort(self.orientation[:, 0])]


def _window(volume: Volume) -> tuple[float, float]:
    if volume.modality == "CT":
        return CT_WINDOW
    low, high = np.percentile(volume.in_unit(volume.voxels[::2, ::2, ::2]), MR_PERCENTILES)
    return float(low), float(max(high, low + 1e-6))


def _coloured(grey: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(A, B, 3) in [0, 1]: grey, tinted where labels are, all colour along their borders."""
    colours = np.repeat(grey[..., None], 3, axis=2)
    edges = np.zeros(labels.shape, np.bool_)
    for axis in (0, 1):
        here, there = np.moveaxis(labels, axis, 0)[:-1], np.moveaxis(labels, axis, 0)[1:]
        differs = here != there
        along = np.moveaxis(edges, axis, 0)
        along[:-1] |= differs
        along[1:] |= differs
    for label in np.unique(labels[labels > 0]):
        colour = np.array(label_colour(int(label))) / 255
        inside = labels == label
        colours[inside] = (1 - TINT) * colours[inside] + TINT * colour
        colours[inside & edges] = colour
    return colours


def _upright(colours: np.ndarray, sides_mm: tuple[float, float]) -> Image.Image:
    """A plane (first axis across, second up) as a picture of square pixels, the first axis mirrored."""
    rows = np.rint(255 * colours[::-1, ::-1].swapaxes(0, 1)).astype(np.uint8)
    height, width = rows.shape[:2]
    size = max(1, round(width * sides_mm[0] / PIXEL_MM)), max(1, round(height * sides_mm[1] / PIXEL_MM))
    return Image.fromarray(np.ascontiguousarray(rows)).resize(size, Image.Resampling.BILINEAR)


def _legend(
    names: Mapping[int, str], found: Mapping[int, LabelVolume]
) -> list[tuple[tuple[int, int, int], str, str]]:
    """Colour, name and amount of every label, those that were found first."""
    order = sorted(names, key=lambda label: (found[label].num_voxels == 0, label))
    return [
        (
            label_colour(label),
            names[label].replace("_", " "),
            f"{found[label].volume_ml:.1f} mL" if found[label].num_voxels else "not found",
        )
        for label in order
    ]


def _sheet(planes: list[Image.Image], legend: list[tuple[tuple[int, int, int], str, str]]) -> Image.Image:
    font = ImageFont.load_default(15)
    name_width = max((font.getlength(name) for _, name, _ in legend), default=0)
    amount_width = max((font.getlength(amount) for _, _, amount in legend), default=0)
    column = round(SWATCH + GAP + name_width + 2 * GAP + amount_width + 2 * GAP)
    tallest = max(plane.height for plane in planes)
    rows = max(1, tallest // LINE)
    left = MARGIN + sum(plane.width + GAP for plane in planes) + GAP
    width = left + column * -(-len(legend) // rows) + MARGIN
    sheet = Image.new("RGB", (width, max(tallest, LINE) + 2 * MARGIN), GROUND)
    draw = ImageDraw.Draw(sheet)
    across = MARGIN
    for plane in planes:
        sheet.paste(plane, (across, MARGIN))
        across += plane.width + GAP
    for number, (colour, name, amount) in enumerate(legend):
        x, y = left + column * (number // rows), MARGIN + LINE * (number % rows)
        draw.rectangle((x, y + 2, x + SWATCH, y + 2 + SWATCH), fill=colour)
        draw.text((x + SWATCH + GAP, y), name, INK, font)
        draw.text((x + column - 2 * GAP - font.getlength(amount), y), amount, FAINT, font)
    return sheet
