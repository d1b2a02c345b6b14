"""What the painted labels are called. A number keeps its name while examples come and go."""

from collections.abc import Iterable, Mapping

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_meduet.gui.segmentation.structure_table import swatch

NUMBER, NAME = 0, 1  # columns
MOST_ROWS_SEEN = 6
BACKGROUND = "background"
NOTHING_YET = "Paint on a scan, or choose labels: their numbers and names appear here."


class TeachNames(QWidget):
    """Emits `changed` when a name is, and `picked` with the label to paint next."""

    changed = Signal()
    picked = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._typed: dict[int, str] = {}  # by a person; these stay whatever the layers say
        self._added: set[int] = set()  # wanted before anything is painted with them
        self._found: dict[int, str] = {}
        self.hint = QLabel(NOTHING_YET)
        self.hint.setWordWrap(True)
        self.rows = QTableWidget(0, 2)
        self.rows.setHorizontalHeaderLabels(["Label", "Name"])
        self.rows.verticalHeader().setVisible(False)
        self.rows.setShowGrid(False)
        self.rows.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.rows.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = self.rows.horizontalHeader()
        header.setSectionResizeMode(NUMBER, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        header.setHighlightSections(False)
        self.add = QPushButton("Another structure")
        self.add.setToolTip("A number and a colour more, for the brush")
        below = QHBoxLayout()
        below.addStretch(1)
        below.addWidget(self.add)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.hint, self.rows):
            column.addWidget(part)
        column.addLayout(below)
        self.rows.itemChanged.connect(self._renamed)
        self.rows.cellClicked.connect(lambda row, column: self.picked.emit(self._numbers()[row]))
        self.add.clicked.connect(self._add)
        self._show()

    def names(self) -> dict[int, str]:
        """Of every label shown."""
        return {number: self._name(number) for number in self._numbers()}

    def disabled_reason(self) -> str:
        """Why these names will not do; empty where they do."""
        names = list(self.names().values())
        twice = next((name for name in names if names.count(name) > 1), None)
        return "" if twice is None else f"Two labels are called {twice!r}: each needs a name of its own."

    def find(self, numbers: Iterable[int], suggested: Mapping[int, str]) -> None:
        """Show these labels.

        Args:
            suggested: what their layers call them.
        """
        found = {number: suggested.get(number, "") for number in numbers}
        if found != self._found:
            self._found = found
            self._show()

    def background(self) -> int | None:
        """The label that strokes on the background have; None where there is none."""
        return next((number for number, name in self.names().items() if name == BACKGROUND), None)

    def want_background(self, is_wanted: bool) -> None:
        """Have a label for strokes on the background, or none."""
        number = self.background()
        if is_wanted and number is None:
            number = max(self._numbers(), default=0) + 1
            self._added.add(number)
            self._typed[number] = BACKGROUND
            self._show()
        elif not is_wanted and number in self._added and number not in self._found:
            self._added.discard(number)
            self._typed.pop(number, None)
            self._show()

    def _name(self, number: int) -> str:
        return self._typed.get(number) or self._found.get(number) or default_name(number)

    def _numbers(self) -> list[int]:
        return sorted(self._found.keys() | self._added)

    def _show(self) -> None:
        numbers = self._numbers()
        with QSignalBlocker(self.rows):
            self.rows.setRowCount(len(numbers))
            for row, number in enumerate(numbers):
                label, name = QTableWidgetItem(str(number)), QTableWidgetItem(self._name(number))
                label.setData(Qt.ItemDataRole.DecorationRole, swatch(number))
                label.setFlags(label.flags() & ~Qt.ItemFlag.ItemIsEditable)
                label.setToolTip("Click: paint with this label")
                name.setToolTip("Double click: another name")
                self.rows.setItem(row, NUMBER, label)
                self.rows.setItem(row, NAME, name)
        self.rows.resizeRowsToContents()
        height = sum(self.rows.rowHeight(row) for row in range(min(len(numbers), MOST_ROWS_SEEN)))
        self.rows.setFixedHeight(height + self.rows.horizontalHeader().sizeHint().height() + 4)
        self.rows.setVisible(bool(numbers))
        self.hint.setVisible(not numbers)
        self.changed.emit()

    def _renamed(self, item: QTableWidgetItem) -> None:
        number, name = self._numbers()[item.row()], item.text().strip()
        self._typed[number] = name
        if not name:  # back to what the layer calls it
            del self._typed[number]
            self._show()
        self.changed.emit()

    def _add(self) -> None:
        number = max(self._numbers(), default=0) + 1
        self._added.add(number)
        self._show()
        self.picked.emit(number)


def default_name(number: int) -> str:
    """What a label is called that nobody named."""
    return f"structure {number}"
