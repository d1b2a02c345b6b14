"""A dialog with a table of the series in a DICOM folder and their problems. It shows no patient data."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QHeaderView,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
)

from napari_meduet.volumes.files import SeriesInfo

if TYPE_CHECKING:
    from napari.viewer import Viewer

COLUMNS = ("Series", "Modality", "Description", "Slices", "Size", "Spacing (mm)", "Problems")


class SeriesDialog(QDialog):
    """A table of series. At first the largest series without a problem is selected."""

    def __init__(self, listed: Sequence[SeriesInfo]) -> None:
        super().__init__()
        self.setWindowTitle("DICOM series")
        self._listed = listed
        self.table = QTableWidget(len(listed), len(COLUMNS))
        self.table.setHorizontalHeaderLabels(COLUMNS)
        self.table.verticalHeader().setVisible(False)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        for row, series in enumerate(listed):
            for column, text in enumerate(_cells(series)):
                self.table.setItem(row, column, QTableWidgetItem(text))
        self.table.resizeColumnsToContents()
        self.table.horizontalHeader().setSectionResizeMode(len(COLUMNS) - 1, QHeaderView.ResizeMode.Stretch)
        self.table.setWordWrap(True)
        self.table.resizeRowsToContents()
        self.table.selectRow(_best(listed))
        self.buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Open | QDialogButtonBox.StandardButton.Cancel
        )
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        self.table.doubleClicked.connect(self.accept)
        column = QVBoxLayout(self)
        column.addWidget(QLabel(f"This folder holds {len(listed)} series. Select the series to open."))
        column.addWidget(self.table)
        column.addWidget(self.buttons)
        self.resize(720, 320)

    def chosen(self) -> list[SeriesInfo]:
        """Return the series whose rows are selected."""
        return [self._listed[index.row()] for index in self.table.selectionModel().selectedRows()]


def open_dicom(viewer: "Viewer") -> None:
    """Ask for a folder and open the series that the user chooses from it."""
    folder = QFileDialog.getExistingDirectory(None, "Folder with DICOM files")
    if folder:
        viewer.open(folder, plugin="napari-meduet")


def _cells(series: SeriesInfo) -> tuple[str, ...]:
    return (
        str(series.number),
        series.modality,
        " ".join(filter(None, (series.description, series.phase))),
        str(series.num_slices),
        " × ".join(map(str, series.shape)),
        " × ".join(f"{step:.2f}" for step in series.spacing_mm or ()),
        " ".join(series.problems),
    )


def _best(listed: Sequence[SeriesInfo]) -> int:
    return max(range(len(listed)), key=lambda row: (not listed[row].problems, listed[row].num_slices))
