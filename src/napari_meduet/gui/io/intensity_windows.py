"""Contrast limits of scans: CT windows in HU, and percentiles for MR.

They change the display, never the voxels. `napari.yaml` puts the windows into the layers menu.
"""

from typing import TYPE_CHECKING

import numpy as np

from napari_meduet.volumes.display_windows import CT_WINDOWS, MR_PERCENTILES
from napari_meduet.volumes.volume import Volume

if TYPE_CHECKING:
    from napari.viewer import Viewer

_MAX_SAMPLES = 1_000_000  # voxels used for the percentiles; more would not change them visibly


def default_limits(data: np.ndarray, volume: Volume) -> tuple[float, float]:
    """Return the contrast limits of a newly opened scan."""
    if volume.modality == "CT":
        return CT_WINDOWS["soft tissue"]
    return percentile_limits(data)


def percentile_limits(data: np.ndarray) -> tuple[float, float]:
    """Return the 1st and 99.5th percentile; the range is never empty."""
    step = max(1, round((data.size / _MAX_SAMPLES) ** (1 / 3)))
    low, high = np.percentile(data[::step, ::step, ::step], MR_PERCENTILES)
    return float(low), float(high if high > low else low + 1)


def _apply(viewer: "Viewer", limits_hu: tuple[float, float] | None) -> None:
    from napari.layers import Image

    for layer in viewer.layers.selection:
        if isinstance(layer, Image) and not layer.rgb:
            layer.contrast_limits = limits_hu or percentile_limits(np.asarray(layer.data))


def show_soft_tissue(viewer: "Viewer") -> None:
    """Show the selected scans in the soft-tissue window."""
    _apply(viewer, CT_WINDOWS["soft tissue"])


def show_lung(viewer: "Viewer") -> None:
    """Show the selected scans in the lung window."""
    _apply(viewer, CT_WINDOWS["lung"])


def show_bone(viewer: "Viewer") -> None:
    """Show the selected scans in the bone window."""
    _apply(viewer, CT_WINDOWS["bone"])


def show_brain(viewer: "Viewer") -> None:
    """Show the selected scans in the brain window."""
    _apply(viewer, CT_WINDOWS["brain"])


def show_percentiles(viewer: "Viewer") -> None:
    """Show the selected scans between their 1st and 99.5th percentile."""
    _apply(viewer, None)
