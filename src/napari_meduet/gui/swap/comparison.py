"""Controls that compare a swap result with its scan: a difference layer, and a button to see the scan."""

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QPushButton, QWidget


class Comparison(QWidget):
    """The controls. The dock shows them once there is a result."""

    difference_toggled = Signal(bool)
    before_toggled = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self.difference = QCheckBox("Show difference")
        self.difference.setToolTip(
            "Show the change as a layer: orange is brighter than before, blue is darker"
        )
        self.before = QPushButton("Hold: before")
        self.before.setToolTip("Show the original scan while the button is held")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.difference, 1)
        row.addWidget(self.before)
        self.difference.toggled.connect(self.difference_toggled)
        self.before.pressed.connect(lambda: self.before_toggled.emit(True))
        self.before.released.connect(lambda: self.before_toggled.emit(False))
