"""Draw panels of swaps: content, style, result and difference, one row for each pair.

    python scripts/make_panels.py [--data ../shared/data] [--model FOLDER]

The script writes `docs/images/ct_swap.png` and `docs/images/mr_swap.png`. The contents are scans that the
model was not trained on. Each slice has the values of its file, in the display window of its row.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import zoom

from napari_meduet.pipelines import ScanChoice, SwapRequest, Volume, read_volume, swap
from napari_meduet.volumes.intensity import body_mask
from napari_meduet.volumes.preparation import WorkingGrid

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
TILE = 300  # pixels
MARGIN = 18  # pixels for the text above each tile
MM_PER_PIXEL = 1.2
DIFFERENCE_HU, DIFFERENCE_MR = 150.0, 0.5  # differences that are drawn white or black


@dataclass(frozen=True)
class Row:
    """A pair: files in the data folder, and for CT the display window in HU (level, width)."""

    content: str
    style: str
    window: tuple[float, float] | None = None


CT_ROWS = (
    Row(
        "ct-chest-lungfcp-siemens/lungfcp_0001.nii.gz", "ct-chest-acrin-siemens16/acrin013.nii.gz", (40, 400)
    ),
    Row(
        "ct-chest-lungfcp-siemens/lungfcp_0001.nii.gz",
        "ct-chest-cmbcrc-ge-vct/cmbcrc_01068.nii.gz",
        (40, 400),
    ),
    Row(
        "ct-chest-maastro-lung1/lung1_001.nii.gz", "ct-chest-cmbcrc-ge-vct/cmbcrc_01068.nii.gz", (-600, 1500)
    ),
    Row("ct-chest-maastro-lung1/lung1_002.nii.gz", "ct-torso-basel-totalseg/ts_cta_crop.nii.gz", (40, 400)),
    Row("ct-extremity-mcgill-ge-ds/sts_014.nii.gz", "ct-abdomen-msk-crlm-ge16/crlm_1004.nii.gz", (40, 400)),
)
MR_ROWS = (
    Row("mr-brain-ljubljana-ms3t/ms19_T1.nii.gz", "mr-brain-ljubljana-ms3t/ms07_T2.nii.gz"),
    Row("mr-brain-ljubljana-ms3t/ms19_T1.nii.gz", "mr-brain-ljubljana-ms3t/ms07_FLAIR.nii.gz"),
    Row("mr-brain-ljubljana-ms3t/ms19_FLAIR.nii.gz", "mr-brain-ljubljana-ms3t/ms07_T2.nii.gz"),
    Row("mr-extremity-mcgill-philips/sts_039_T1.nii.gz", "mr-extremity-mcgill-siemens/sts_001_T1.nii.gz"),
)


def axial(volume: Volume, values: np.ndarray, height: float) -> np.ndarray:
    """Return an axial slice in radiological orientation, with pixels of a fixed size.

    Args:
        height: position of the slice between the lowest (0) and the highest (1).
    """
    grid = WorkingGrid.for_volume(volume)
    ras = np.flip(np.transpose(values, grid.axes), tuple(k for k in range(3) if grid.flips[k]))
    spacing = [volume.spacing_mm[axis] for axis in grid.axes]
    plane = ras[:, :, round(height * (ras.shape[2] - 1))]
    scaled = zoom(plane, [mm / MM_PER_PIXEL for mm in spacing[:2]], order=1)
    return scaled[::-1, ::-1].T  # (rows, columns): anterior up, the patient's right on the left


def tile(image: np.ndarray, low: float, high: float) -> Image.Image:
    """Return the image in grey levels, in the middle of a black square."""
    grey = np.uint8(255 * np.clip((image - low) / (high - low), 0, 1))
    picture = Image.fromarray(grey)
    picture.thumbnail((TILE, TILE))
    square = Image.new("L", (TILE, TILE))
    square.paste(picture, ((TILE - picture.width) // 2, (TILE - picture.height) // 2))
    return square


def fullest(volume: Volume) -> float:
    """Return the height of the slice with the largest area of the body."""
    body = body_mask(volume.values(), volume.modality)
    grid = WorkingGrid.for_volume(volume)
    areas = np.transpose(body, grid.axes).sum(axis=(0, 1))
    areas = areas[::-1] if grid.flips[2] else areas
    return float(areas.argmax()) / max(len(areas) - 1, 1)


def draw_row(row: Row, data: Path, model: Path | None) -> Image.Image:
    """Draw content, style, result and difference of a pair, with the names and the verdict."""
    modality = "CT" if row.window else "MR"
    choice = ScanChoice(modality=modality)
    content, style = (read_volume(data / name, modality=modality) for name in (row.content, row.style))
    result = swap(SwapRequest(content, style, model=model, content_choice=choice, style_choice=choice))
    before, after, other = (volume.values() for volume in (content, result.volume, style))
    height = fullest(content)

    if row.window:
        level, width = row.window
        windows = [(level - width / 2, level + width / 2)] * 3
        largest = DIFFERENCE_HU
    else:
        windows = [tuple(np.percentile(v[v > 0], (0.5, 99.5))) for v in (before, other, after)]
        largest = DIFFERENCE_MR * (windows[0][1] - windows[0][0])
    slices = [
        (axial(content, before, height), *windows[0]),
        (axial(style, other, fullest(style)), *windows[1]),
        (axial(content, after, height), *windows[2]),
        (axial(content, after - before, height), -largest, largest),
    ]
    names = [Path(name).name.split(".")[0] for name in (row.content, row.style)]
    unit = "HU" if row.window else "of the window"
    shown = f"{largest:.0f}" if row.window else f"{DIFFERENCE_MR:.0%}"
    titles = [
        f"content {names[0]}",
        f"style {names[1]}",
        f"result ({result.report.verdict})",
        f"result - content, +-{shown} {unit}",
    ]
    picture = Image.new("L", (4 * TILE, TILE + MARGIN), 0)
    pen = ImageDraw.Draw(picture)
    for column, (image, title) in enumerate(zip(slices, titles, strict=True)):
        picture.paste(tile(*image), (column * TILE, MARGIN))
        pen.text((column * TILE + 4, 3), title, fill=255)
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data", help="Folder of the scans."
    )
    parser.add_argument("--model", type=Path, help="Model folder. Default: the embedded model.")
    parser.add_argument(
        "--output", type=Path, default=IMAGES, help="Folder for the pictures. Default: docs/images."
    )
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for name, rows in (("ct_swap", CT_ROWS), ("mr_swap", MR_ROWS)):
        pictures = [draw_row(row, options.data, options.model) for row in rows]
        panel = Image.new("L", (pictures[0].width, sum(picture.height for picture in pictures)))
        for number, picture in enumerate(pictures):
            panel.paste(picture, (0, number * picture.height))
        panel.save(options.output / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
