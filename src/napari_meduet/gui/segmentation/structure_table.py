"""The structures of a segmentation: colour, name and volume of each, whether it is seen, and where it is."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QCheckBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_meduet.pipelines.segmentation.label_colours import label_colour

NAME, VOLUME = 0, 1  # columns
MOST_ROWS_SEEN = 9
_LABEL = Qt.ItemDataRole.UserRole
_SWATCH = 12  # pixels
_SEEN, _HIDDEN, _PARTLY = Qt.CheckState.Checked, Qt.CheckState.Unchecked, Qt.CheckState.PartiallyChecked


@dataclass(frozen=True)
class Structure:
    """A label that is somewhere in a segmentation."""

    label: int
    name: str
    volume_ml: float


class StructureTable(QWidget):
    """Emits `hidden_changed` with the labels not to be seen, and `visited` with the one to be shown."""

    hidden_changed = Signal(object)  # frozenset[int]
    visited = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._structures: list[Structure] = []
        self.title = QLabel()
        self.title.setWordWrap(True)
        self.rows = QTableWidget(0, 2)
        self.rows.setHorizontalHeaderLabels(["Structure", "mL"])
        self.rows.verticalHeader().setVisible(False)
        self.rows.setShowGrid(False)
        self.rows.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.rows.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.rows.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.rows.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = self.rows.horizontalHeader()
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(VOLUME, QHeaderView.ResizeMode.ResizeToContents)
        header.setHighlightSections(False)
        self.all = QCheckBox("Show all")
        self.copy = QPushButton("Copy as CSV")
        self.copy.setToolTip("Number, name and volume of each structure, for a spreadsheet")
        below = QHBoxLayout()
        below.addWidget(self.all, 1)
        below.addWidget(self.copy)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.title, self.rows):
            column.addWidget(part)
        column.addLayout(below)
        self.rows.itemChanged.connect(self._checked)
        self.rows.currentCellChanged.connect(lambda row, *rest: self._visit(row))
        self.rows.cellClicked.connect(lambda row, *rest: self._visit(row))
        self.all.clicked.connect(self._show_all)
        self.copy.clicked.connect(lambda: QApplication.clipboard().setText(self.as_csv()))

    def show_structures(self, structures: Sequence[Structure], hidden: frozenset[int]) -> None:
        """Show these instead of the ones before."""
        self._structures = list(structures)
        with QSignalBlocker(self.rows):
            self.rows.setRowCount(len(structures))
            for row, structure in enumerate(structures):
                name, volume = QTableWidgetItem(structure.name), QTableWidgetItem(told(structure.volume_ml))
                name.setData(_LABEL, structure.label)
                name.setData(Qt.ItemDataRole.DecorationRole, swatch(structure.label))
                name.setCheckState(_HIDDEN if structure.label in hidden else _SEEN)
                name.setToolTip(
                    f"Label {structure.label}. Click: go to where most of it is. Check box: show it."
                )
                volume.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.rows.setItem(row, NAME, name)
                self.rows.setItem(row, VOLUME, volume)
        self.rows.resizeRowsToContents()
        height = sum(self.rows.rowHeight(row) for row in range(min(len(structures), MOST_ROWS_SEEN)))
        self.rows.setFixedHeight(height + self.rows.horizontalHeader().sizeHint().height() + 4)
        self._tell_all(hidden)

    def hidden(self) -> frozenset[int]:
        """The labels that are not to be seen."""
        rows = (self.rows.item(row, NAME) for row in range(self.rows.rowCount()))
        return frozenset(row.data(_LABEL) for row in rows if row is not None and row.checkState() == _HIDDEN)

    def as_csv(self) -> str:
        """Number, name and volume of each structure."""
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(["label", "name", "volume_ml"])
        lines.writerows([each.label, each.name, f"{each.volume_ml:.3f}"] for each in self._structures)
        return text.getvalue()

    def _checked(self) -> None:
        hidden = self.hidden()
        self._tell_all(hidden)
        self.hidden_changed.emit(hidden)

    def _show_all(self) -> None:
        state = _SEEN if self.all.checkState() != _HIDDEN else _HIDDEN
        with QSignalBlocker(self.rows):
            for row in range(self.rows.rowCount()):
                item = self.rows.item(row, NAME)
                assert item is not None
                item.setCheckState(state)
        self._checked()

    def _tell_all(self, hidden: frozenset[int]) -> None:
        some = _PARTLY if len(hidden) < len(self._structures) else _HIDDEN
        with QSignalBlocker(self.all):
            self.all.setCheckState(some if hidden else _SEEN)

    def _visit(self, row: int) -> None:
        if 0 <= row < len(self._structures):
            self.visited.emit(self._structures[row].label)


def swatch(label: int) -> QIcon:
    """A square of a label's colour, whatever the state of its row."""
    square, icon = QPixmap(_SWATCH, _SWATCH), QIcon()
    square.fill(QColor(*label_colour(label)))
    for mode in (QIcon.Mode.Normal, QIcon.Mode.Disabled, QIcon.Mode.Selected):
        icon.addPixmap(square, mode)
    return icon


def told(volume_ml: float) -> str:
    """A volume with three figures that mean something."""
    if volume_ml >= 100:
        return f"{volume_ml:,.0f}"
    return f"{volume_ml:.1f}" if volume_ml >= 10 else f"{volume_ml:.2f}"
