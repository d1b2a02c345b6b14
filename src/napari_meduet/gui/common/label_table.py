"""A table of labels with two columns, used by the segmentation results and by the Teach page."""

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget

from napari_meduet.pipelines.segmentation.label_colours import label_colour

_SWATCH = 12  # pixels


class LabelTable(QTableWidget):
    """A table without grid and row numbers. One of its two columns takes the free width."""

    def __init__(self, headers: tuple[str, str], wide_column: int) -> None:
        super().__init__(0, len(headers))
        self.setHorizontalHeaderLabels(headers)
        self.verticalHeader().setVisible(False)
        self.setShowGrid(False)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = self.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(wide_column, QHeaderView.ResizeMode.Stretch)
        header.setHighlightSections(False)

    def fit_height(self, max_rows: int) -> None:
        """Make the table as high as its rows need, at most `max_rows` rows."""
        self.resizeRowsToContents()
        height = sum(self.rowHeight(row) for row in range(min(self.rowCount(), max_rows)))
        self.setFixedHeight(height + self.horizontalHeader().sizeHint().height() + 4)


def swatch(label: int) -> QIcon:
    """Return a square in the colour of a label. It looks the same in every state of its row."""
    square, icon = QPixmap(_SWATCH, _SWATCH), QIcon()
    square.fill(QColor(*label_colour(label)))
    for mode in (QIcon.Mode.Normal, QIcon.Mode.Disabled, QIcon.Mode.Selected):
        icon.addPixmap(square, mode)
    return icon
