"""Before and after: the difference as a layer, and the scan itself while a button is held."""

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QPushButton, QWidget


class Comparison(QWidget):
    """Asks for the difference, and for the scan as it was; shown once there is a result."""

    difference_wanted = Signal(bool)
    before_wanted = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self.difference = QCheckBox("Show difference")
        self.difference.setToolTip("Orange: brighter than before. Blue: darker.")
        self.before = QPushButton("Hold: before")
        self.before.setToolTip("While held, the scan is seen as it was")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.difference, 1)
        row.addWidget(self.before)
        self.difference.toggled.connect(self.difference_wanted)
        self.before.pressed.connect(lambda: self.before_wanted.emit(True))
        self.before.released.connect(lambda: self.before_wanted.emit(False))
