"""A part of a form that opens and closes with a click on its title."""

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QSizePolicy, QToolButton, QWidget

from napari_meduet.gui.common.forms import fill_column


class Section(QWidget):
    """A title and its content, closed at first.

    superqt's QCollapsible animates to the first size hint of its content and so cuts off text that wraps.
    """

    def __init__(self, title: str, content: QWidget) -> None:
        super().__init__()
        self.title = QToolButton()
        self.title.setText(title)
        self.title.setCheckable(True)
        self.title.setAutoRaise(True)
        self.title.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.title.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        # napari's style would draw a checked button as a blue bar
        self.title.setStyleSheet("QToolButton { background: transparent; border: none; text-align: left; }")
        self.content = content
        fill_column(self, self.title, content, spacing=2)
        self.title.toggled.connect(self.set_open)
        self.set_open(False)

    def set_open(self, is_open: bool) -> None:
        """Show or hide the content."""
        self.title.setChecked(is_open)
        self.title.setArrowType(Qt.ArrowType.DownArrow if is_open else Qt.ArrowType.RightArrow)
        self.content.setVisible(is_open)
