"""The validation panel of a pretraining: crops, their reconstructions and their swaps.

A row is one content crop in one window: the input, its reconstruction, their difference, and the content in
each style. The crop that gave the style is above each column of swaps. evaluation/factors/validation.py
computes the slices; panels.py draws them.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from meduet_training.evaluation.factors.validation import CropSlices
from meduet_training.reporting.panels import Row, Tile, Window, coloured, draw_panel, grey, window_of
from napari_meduet.pipelines.style_swap.panel import CHANGE_SHARE, CT_WINDOWS

FULL_CHANGE_HU = {"soft tissue": 150, "lung": 500}  # differences with full colour
LUNG_HU, MIN_LUNG_FRACTION = -500.0, 0.15  # a slice with more lung is shown in the lung window too


@dataclass(frozen=True)
class _View:
    """One content crop in one window.

    Attributes:
        full_change: difference with full colour.
        error: mean absolute error of the reconstruction in the body, with its unit.
    """

    content: int
    window: Window
    label: str
    full_change: float
    error: str


def validation_panel(shown: CropSlices, title: str, note: str) -> Image.Image:
    """Draw the crops of one modality.

    Args:
        note: a sentence about the source of the crops.
    """
    num_styles = len(shown.domains)
    inputs, reconstructions, swaps = (
        _in_unit(values, shown) for values in (shown.inputs, shown.reconstructions, shown.swaps)
    )
    rows = []
    for view in _views(inputs, reconstructions, shown):
        k = view.content
        difference = coloured(reconstructions[k] - inputs[k], view.full_change)
        tiles = [
            Tile(image=grey(inputs[k], view.window)),
            Tile(image=grey(reconstructions[k], view.window)),
            Tile(image=difference, caption=f"mean {view.error}"),
            *(
                Tile(image=grey(swaps[k, m], view.window), is_framed=m == k)  # its own style
                for m in range(num_styles)
            ),
        ]
        rows.append(Row(label=view.label, tiles=tiles))
    styles = [
        Tile(image=grey(each, window_of(each, shown.modality)), caption=f"style {k}")
        for k, each in enumerate(inputs, start=1)
    ]
    swap_captions = ["content of the row in the style above", *[""] * (num_styles - 1)]
    return draw_panel(
        title,
        " ".join([*_explanation(shown.modality), note]),
        rows,
        ["input", "reconstruction", "difference", *swap_captions],
        header=styles,
        wide_gap_after=3,
    )


def _in_unit(values: np.ndarray, shown: CropSlices) -> np.ndarray:
    """Return HU for CT, and normalised intensities for every other modality."""
    return shown.ct_profile.decode(values) if shown.modality == "CT" else values


def _views(inputs: np.ndarray, reconstructions: np.ndarray, shown: CropSlices) -> list[_View]:
    """Return one view of each content; a CT slice with lung has a second one in the lung window."""
    views = []
    for k, domain in enumerate(shown.domains):
        body = shown.body[k] if shown.body[k].any() else np.ones_like(shown.body[k])
        error = float(np.abs(reconstructions[k] - inputs[k])[body].mean())
        name = f"{k + 1}  {domain}"
        if shown.modality == "CT":
            has_lung = (inputs[k][body] < LUNG_HU).mean() > MIN_LUNG_FRACTION
            for window in CT_WINDOWS if has_lung else ("soft tissue",):
                full = FULL_CHANGE_HU[window]
                views.append(_View(k, CT_WINDOWS[window], f"{name}\n{window}", full, f"{error:.0f} HU"))
        else:
            low, high = window_of(inputs[k], shown.modality)
            views.append(_View(k, (low, high), name, CHANGE_SHARE * (high - low), f"{error:.3f}"))
    return views


def _explanation(modality: str | None) -> list[str]:
    windows = {
        "CT": "CT windows: "
        + ", ".join(f"{name} L {(a + b) / 2:.0f} W {b - a:.0f}" for name, (a, b) in CT_WINDOWS.items()),
        "MR": "MR: 1st to 99.5th percentile of the input",
        None: "Unknown modality: full range of the intensity profile",
    }
    full = "half the window"
    if modality == "CT":
        full = " and ".join(f"{change} HU ({name})" for name, change in FULL_CHANGE_HU.items())
    return [
        "Axial slices through the middle of each crop, front up, the patient's right on the left. All of "
        "them, also the inputs, were decoded by the run's tokenizer.",
        f"{windows[modality]}; a row has one window.",
        f"Difference: reconstruction minus input, blue below 0, orange above 0, full colour at {full}; the "
        "tile names its mean size in the body.",
        "The styles are those of the same crops; the framed swap has the content's own style.",
    ]
