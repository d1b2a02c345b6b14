"""A grid of previews with different guidance weights. A click on a preview chooses its weights.

The content weight grows from row to row, the style weight from column to column. Each preview is an axial
slice in radiological view: the patient's right is on the left, anterior is up.
"""

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QToolButton, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from napari_meduet.pipelines.synthesis.outputs import GuidanceGrid

CELL = 52  # pixels; four cells and their weights fit into the narrowest dock


class GuidancePicture(QWidget):
    """The grid. It is hidden until there are previews."""

    chosen = Signal(float, float)  # content weight, style weight

    def __init__(self) -> None:
        super().__init__()
        self.cells: dict[tuple[float, float], QToolButton] = {}
        self._grid = QWidget()
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        hint = QLabel("Click a preview to use its weights.")
        hint.setWordWrap(True)
        self._column.addWidget(hint)
        self._column.addWidget(self._grid)
        self.setVisible(False)

    def show_grid(self, grid: "GuidanceGrid", limits: tuple[float, float]) -> None:
        """Show a grid in place of an earlier one.

        Args:
            limits: Values shown as black and as white.
        """
        self._column.removeWidget(self._grid)
        self._grid.deleteLater()
        self._grid, self.cells = QWidget(), {}
        cells = QGridLayout(self._grid)
        cells.setContentsMargins(0, 0, 0, 0)
        cells.setSpacing(2)
        for column, style in enumerate(grid.style_weights, start=1):
            cells.addWidget(_caption(f"style {style:g}" if column == 1 else f"{style:g}"), 0, column)
        for row, content in enumerate(grid.content_weights, start=1):
            cells.addWidget(_caption(f"content\n{content:g}" if row == 1 else f"{content:g}"), row, 0)
            for column, style in enumerate(grid.style_weights, start=1):
                cell = self._cell(grid.slices[row - 1, column - 1], limits, content, style)
                cells.addWidget(cell, row, column)
        cells.setColumnStretch(len(grid.style_weights) + 1, 1)
        self._column.addWidget(self._grid)
        self.setVisible(True)

    def _cell(
        self, pixels: np.ndarray, limits: tuple[float, float], content: float, style: float
    ) -> QToolButton:
        cell = QToolButton()
        picture = QPixmap.fromImage(grey_image(pixels, limits))
        keep, smooth = Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
        cell.setIcon(QIcon(picture.scaled(CELL, CELL, keep, smooth)))
        cell.setIconSize(QSize(CELL, CELL))
        cell.setCheckable(True)
        cell.setAutoExclusive(True)
        cell.setStyleSheet(
            "QToolButton { background: transparent; border: 2px solid transparent; padding: 0; }"
            "QToolButton:hover { border-color: #9a9a9a; } QToolButton:checked { border-color: #f2c14e; }"
        )
        cell.setToolTip(f"Content weight {content:g}, style weight {style:g}")
        cell.setAccessibleName(cell.toolTip())
        cell.clicked.connect(lambda: self.chosen.emit(content, style))
        self.cells[content, style] = cell
        return cell


def grey_image(pixels: np.ndarray, limits: tuple[float, float]) -> QImage:
    """Return an axial slice (X Y, towards right and anterior) as an image in radiological view."""
    low, high = limits
    greys = np.clip((pixels - low) / (high - low), 0, 1) * 255
    image = np.ascontiguousarray(greys.T[::-1, ::-1], dtype=np.uint8)
    height, width = image.shape
    return QImage(image.tobytes(), width, height, width, QImage.Format.Format_Grayscale8).copy()


def _caption(text: str) -> QLabel:
    label = QLabel(text)
    label.setAlignment(Qt.AlignmentFlag.AlignCenter)
    return label
