"""Another style for the last result, from the very same noise: what differs is the style."""

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QPushButton, QVBoxLayout, QWidget

from napari_meduet.gui.common.forms import rows
from napari_meduet.gui.synthesis.controls import StyleBox

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari.components import ViewerModel

NOTHING_YET = "Run a synthesis first: its noise and content are kept for the comparison"


class SameNoise(QWidget):
    """Asks for the last volume in another style, and for both beside each other."""

    wanted = Signal()
    side_by_side_wanted = Signal(bool)

    def __init__(
        self, viewer: "ViewerModel", domains: "Callable[[], Sequence[str]]", default: "Callable"
    ) -> None:
        super().__init__()
        self.style_source = StyleBox(viewer, domains, default)
        self.button = QPushButton("Same noise, this style")
        self.side_by_side = QCheckBox("Side by side")
        self.side_by_side.setToolTip("Both volumes beside each other; everything else is hidden meanwhile")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(rows(("Style", self.style_source)))
        column.addWidget(self.button)
        column.addWidget(self.side_by_side)
        self.button.clicked.connect(self.wanted)
        self.side_by_side.toggled.connect(self.side_by_side_wanted)
        self.offer(False, False)

    def offer(self, has_result: bool, has_pair: bool) -> None:
        """What can be asked for now."""
        self.button.setEnabled(has_result)
        self.button.setToolTip("" if has_result else NOTHING_YET)
        self.side_by_side.setEnabled(has_pair)
        if not has_pair:
            self.side_by_side.setChecked(False)
