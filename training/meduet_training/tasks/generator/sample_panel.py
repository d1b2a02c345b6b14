"""The panel of a generator: held-out crops, and samples with the content of each crop in the style of each.

A row is one content; the crop that gave the style is above each column of samples. All samples start from the
same noise. validation.py beside this file computes the slices; reporting/panels.py draws them.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from meduet_training.reporting.panels import Row, Tile, draw_panel, grey, window_of
from napari_meduet.volumes.intensity import IntensityProfile
from napari_meduet.volumes.volume import Modality

EXPLANATION = (
    "Axial slices through the middle of each sample, front up, the patient's right on the left. Samples have "
    "spatial content (same anatomy) and no guidance. Framed samples have content and style of the same crop."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleGrid:
    """K crops of one modality and K x K samples: the middle axial slice of each.

    Attributes:
        crops: (K, X, Y), normalised intensity, decoded from the latents of the crops.
        samples: (K, K, X, Y); [k, m] has the spatial content of crop k and the style of crop m.
    """

    modality: Modality
    ct_profile: IntensityProfile
    domains: tuple[str, ...]
    crops: np.ndarray
    samples: np.ndarray


def sample_panel(grid: SampleGrid, title: str, note: str) -> Image.Image:
    """Draw the samples of one modality, each in the window of its style.

    Args:
        note: a sentence about the source of the crops.
    """
    crops, samples = grid.crops, grid.samples
    if grid.modality == "CT":
        crops, samples = grid.ct_profile.decode(crops), grid.ct_profile.decode(samples)
    windows = [window_of(crop, grid.modality) for crop in crops]
    tiles = [grey(crop, window) for crop, window in zip(crops, windows, strict=True)]
    rows = [
        Row(
            label=f"{k + 1}  {domain}",
            tiles=[
                Tile(image=tiles[k]),
                *(
                    Tile(image=grey(samples[k, m], window), is_framed=m == k)
                    for m, window in enumerate(windows)
                ),
            ],
        )
        for k, domain in enumerate(grid.domains)
    ]
    return draw_panel(
        title,
        f"{EXPLANATION} {note}",
        rows,
        ["held-out crop", "samples", *[""] * (len(crops) - 1)],
        header=[Tile(image=tile, caption=f"style {k}") for k, tile in enumerate(tiles, start=1)],
        wide_gap_after=1,
    )
