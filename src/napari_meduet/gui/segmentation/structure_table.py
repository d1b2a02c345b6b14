"""Table of the structures in a segmentation: colour, name, volume and visibility of each."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QCheckBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QTableWidgetItem,
    QWidget,
)

from napari_meduet.gui.common.forms import fill_column
from napari_meduet.gui.common.label_table import LabelTable, swatch

NAME, VOLUME = 0, 1  # columns
MAX_VISIBLE_ROWS = 9
_LABEL = Qt.ItemDataRole.UserRole
_SHOWN, _HIDDEN, _PARTLY = Qt.CheckState.Checked, Qt.CheckState.Unchecked, Qt.CheckState.PartiallyChecked


@dataclass(frozen=True)
class Structure:
    """A label with at least one voxel in a segmentation."""

    label: int
    name: str
    volume_ml: float


class StructureTable(QWidget):
    """Emits `hidden_changed` with the hidden labels, and `visited` with the label that the user clicked."""

    hidden_changed = Signal(object)  # frozenset[int]
    visited = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._structures: list[Structure] = []
        self.title = QLabel()
        self.title.setWordWrap(True)
        self.rows = LabelTable(("Structure", "mL"), wide_column=NAME)
        self.rows.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.rows.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.all = QCheckBox("Show all")
        self.copy = QPushButton("Copy as CSV")
        self.copy.setToolTip("Copy number, name and volume of each structure for a spreadsheet")
        below = QHBoxLayout()
        below.addWidget(self.all, 1)
        below.addWidget(self.copy)
        fill_column(self, self.title, self.rows, below)
        self.rows.itemChanged.connect(self._checked)
        self.rows.currentCellChanged.connect(lambda row, *rest: self._visit(row))
        self.rows.cellClicked.connect(lambda row, *rest: self._visit(row))
        self.all.clicked.connect(self._show_all)
        self.copy.clicked.connect(lambda: QApplication.clipboard().setText(self.as_csv()))

    def show_structures(self, structures: Sequence[Structure], hidden: frozenset[int]) -> None:
        """Replace the structures in the table."""
        self._structures = list(structures)
        with QSignalBlocker(self.rows):
            self.rows.setRowCount(len(structures))
            for row, structure in enumerate(structures):
                name = QTableWidgetItem(structure.name)
                volume = QTableWidgetItem(volume_text(structure.volume_ml))
                name.setData(_LABEL, structure.label)
                name.setData(Qt.ItemDataRole.DecorationRole, swatch(structure.label))
                name.setCheckState(_HIDDEN if structure.label in hidden else _SHOWN)
                name.setToolTip(
                    f"Label {structure.label}. Click: go to the slice with most of it. Box: show or hide it."
                )
                volume.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.rows.setItem(row, NAME, name)
                self.rows.setItem(row, VOLUME, volume)
        self.rows.fit_height(MAX_VISIBLE_ROWS)
        self._update_all(hidden)

    def hidden(self) -> frozenset[int]:
        """Return the hidden labels."""
        rows = (self.rows.item(row, NAME) for row in range(self.rows.rowCount()))
        return frozenset(row.data(_LABEL) for row in rows if row is not None and row.checkState() == _HIDDEN)

    def as_csv(self) -> str:
        """Return number, name and volume of each structure as CSV text."""
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(["label", "name", "volume_ml"])
        lines.writerows([each.label, each.name, f"{each.volume_ml:.3f}"] for each in self._structures)
        return text.getvalue()

    def _checked(self) -> None:
        hidden = self.hidden()
        self._update_all(hidden)
        self.hidden_changed.emit(hidden)

    def _show_all(self) -> None:
        state = _SHOWN if self.all.checkState() != _HIDDEN else _HIDDEN
        with QSignalBlocker(self.rows):
            for row in range(self.rows.rowCount()):
                item = self.rows.item(row, NAME)
                assert item is not None
                item.setCheckState(state)
        self._checked()

    def _update_all(self, hidden: frozenset[int]) -> None:
        some = _PARTLY if len(hidden) < len(self._structures) else _HIDDEN
        with QSignalBlocker(self.all):
            self.all.setCheckState(some if hidden else _SHOWN)

    def _visit(self, row: int) -> None:
        if 0 <= row < len(self._structures):
            self.visited.emit(self._structures[row].label)


def volume_text(volume_ml: float) -> str:
    """Return a volume in millilitres with about three significant digits."""
    if volume_ml >= 100:
        return f"{volume_ml:,.0f}"
    return f"{volume_ml:.1f}" if volume_ml >= 10 else f"{volume_ml:.2f}"
