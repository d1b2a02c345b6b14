"""Colours and markers of every panel and chart of the training package.

Panels have a dark ground, as radiology viewers have. The series colours can be told apart with any colour
vision, on white and on black. The colours that panels share with the plugin come from
napari_meduet/pipelines/common/picture_colours.py and napari_meduet/pipelines/style_swap/panel.py.
"""

import numpy as np

from napari_meduet.pipelines.common.picture_colours import FAINT, GROUND, INK
from napari_meduet.pipelines.style_swap.panel import LESS, MORE

__all__ = ["FAINT", "FRAME", "GROUND", "INK", "LESS", "MARKERS", "MORE", "NOT_ANNOTATED", "SERIES"]

FRAME = (205, 205, 210)  # around the tiles that show a crop in its own style
NOT_ANNOTATED = np.array([0.25, 0.25, 0.3])  # over voxels without a label
SERIES = ("#4e8fd0", "#e08a1e", "#2ba58a", "#d0669b", "#8d7be0", "#c9a400", "#b5624a", "#7a8791")
MARKERS = "osD^vPX*"
