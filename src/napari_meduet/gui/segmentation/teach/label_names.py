"""Table of label names on the Teach page. A label keeps its name when samples are added or removed."""

from collections.abc import Iterable, Mapping

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QTableWidgetItem, QWidget

from napari_meduet.gui.common.forms import fill_column
from napari_meduet.gui.common.label_table import LabelTable, swatch

NUMBER, NAME = 0, 1  # columns
MAX_VISIBLE_ROWS = 6
BACKGROUND = "background"
NO_LABELS = "Paint on a scan, or choose labels: their numbers and names appear here."


class LabelNames(QWidget):
    """Emits `changed` when a name changes, and `picked` with the label to paint next."""

    changed = Signal()
    picked = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._typed: dict[int, str] = {}  # names that the user typed; they replace names from layers
        self._added: set[int] = set()  # labels that the user added before painting with them
        self._painted: dict[int, str] = {}  # painted labels, with the names in their layers
        self.hint = QLabel(NO_LABELS)
        self.hint.setWordWrap(True)
        self.rows = LabelTable(("Label", "Name"), wide_column=NAME)
        self.add = QPushButton("Another structure")
        self.add.setToolTip("Add a label with a new colour, and select it for the brush")
        below = QHBoxLayout()
        below.addStretch(1)
        below.addWidget(self.add)
        fill_column(self, self.hint, self.rows, below)
        self.rows.itemChanged.connect(self._renamed)
        self.rows.cellClicked.connect(lambda row, column: self.picked.emit(self._numbers()[row]))
        self.add.clicked.connect(self._add)
        self._show()

    def names(self) -> dict[int, str]:
        """Return the name of every label in the table."""
        return {number: self._name(number) for number in self._numbers()}

    def disabled_reason(self) -> str:
        """Return why these names cannot be used; empty if they can."""
        names = list(self.names().values())
        twice = next((name for name in names if names.count(name) > 1), None)
        return "" if twice is None else f"Two labels have the name {twice!r}: give each label its own name."

    def show_painted(self, numbers: Iterable[int], suggested: Mapping[int, str]) -> None:
        """Show the painted labels.

        Args:
            numbers: The painted labels.
            suggested: The names of labels in their layers.
        """
        painted = {number: suggested.get(number, "") for number in numbers}
        if painted != self._painted:
            self._painted = painted
            self._show()

    def background(self) -> int | None:
        """Return the label of strokes on the background; None if there is none."""
        return next((number for number, name in self.names().items() if name == BACKGROUND), None)

    def show_background_row(self, is_shown: bool) -> None:
        """Add a row for strokes on the background, or remove it if nothing is painted with its label."""
        number = self.background()
        if is_shown and number is None:
            number = max(self._numbers(), default=0) + 1
            self._added.add(number)
            self._typed[number] = BACKGROUND
            self._show()
        elif not is_shown and number in self._added and number not in self._painted:
            self._added.discard(number)
            self._typed.pop(number, None)
            self._show()

    def _name(self, number: int) -> str:
        return self._typed.get(number) or self._painted.get(number) or default_name(number)

    def _numbers(self) -> list[int]:
        return sorted(self._painted.keys() | self._added)

    def _show(self) -> None:
        numbers = self._numbers()
        with QSignalBlocker(self.rows):
            self.rows.setRowCount(len(numbers))
            for row, number in enumerate(numbers):
                label, name = QTableWidgetItem(str(number)), QTableWidgetItem(self._name(number))
                label.setData(Qt.ItemDataRole.DecorationRole, swatch(number))
                label.setFlags(label.flags() & ~Qt.ItemFlag.ItemIsEditable)
                label.setToolTip("Click: paint with this label")
                name.setToolTip("Double click: change the name")
                self.rows.setItem(row, NUMBER, label)
                self.rows.setItem(row, NAME, name)
        self.rows.fit_height(MAX_VISIBLE_ROWS)
        self.rows.setVisible(bool(numbers))
        self.hint.setVisible(not numbers)
        self.changed.emit()

    def _renamed(self, item: QTableWidgetItem) -> None:
        number, name = self._numbers()[item.row()], item.text().strip()
        self._typed[number] = name
        if not name:  # an empty name restores the name in the layer
            del self._typed[number]
            self._show()
        self.changed.emit()

    def _add(self) -> None:
        number = max(self._numbers(), default=0) + 1
        self._added.add(number)
        self._show()
        self.picked.emit(number)


def default_name(number: int) -> str:
    """Return the name of a label without a name."""
    return f"structure {number}"
