"""Controls that sample the latest volume again with another style and the same noise, for comparison."""

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QPushButton, QWidget

from napari_meduet.gui.common.forms import fill_column, rows
from napari_meduet.gui.synthesis.controls import StyleBox

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari.components import ViewerModel

NO_RESULT = "Run a synthesis first; the comparison uses its noise and content"


class SameNoise(QWidget):
    """Emits `requested` for a second volume, and `side_by_side_toggled` to show both volumes."""

    requested = Signal()
    side_by_side_toggled = Signal(bool)

    def __init__(
        self, viewer: "ViewerModel", domains: "Callable[[], Sequence[str]]", default: "Callable"
    ) -> None:
        super().__init__()
        self.style_source = StyleBox(viewer, domains, default)
        self.button = QPushButton("Same noise, this style")
        self.side_by_side = QCheckBox("Side by side")
        self.side_by_side.setToolTip("Show both volumes side by side and hide all other layers")
        fill_column(self, rows(("Style", self.style_source)), self.button, self.side_by_side)
        self.button.clicked.connect(self.requested)
        self.side_by_side.toggled.connect(self.side_by_side_toggled)
        self.offer(False, False)

    def offer(self, has_result: bool, has_pair: bool) -> None:
        """Enable the controls that can be used now."""
        self.button.setEnabled(has_result)
        self.button.setToolTip("" if has_result else NO_RESULT)
        self.side_by_side.setEnabled(has_pair)
        if not has_pair:
            self.side_by_side.setChecked(False)
