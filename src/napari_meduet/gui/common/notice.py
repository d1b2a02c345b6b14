"""A message to the user: one sentence, and for unexpected errors a folded traceback."""

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QLabel, QPlainTextEdit, QPushButton, QWidget

from napari_meduet.gui.common.background import Problem
from napari_meduet.gui.common.forms import fill_column
from napari_meduet.gui.common.section import Section


class Notice(QWidget):
    """Shows one problem. It is hidden while there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.sentence = QLabel()
        self.sentence.setWordWrap(True)
        self.sentence.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.sentence.setStyleSheet("QLabel { border-left: 3px solid #d9534f; padding-left: 6px; }")
        self.traceback = QPlainTextEdit()
        self.traceback.setReadOnly(True)
        self.traceback.setFixedHeight(120)
        copy = QPushButton("Copy")
        copy.clicked.connect(lambda: QApplication.clipboard().setText(self.traceback.toPlainText()))
        self.details = Section("Details", fill_column(QWidget(), self.traceback, copy))
        fill_column(self, self.sentence, self.details)
        self.clear()

    def show_problem(self, problem: Problem) -> None:
        """Show a problem."""
        self.sentence.setText(problem.sentence)
        self.traceback.setPlainText(problem.details)
        self.details.set_open(False)
        self.details.setVisible(bool(problem.details))
        self.setVisible(True)

    def clear(self) -> None:
        """Hide the notice."""
        self.setVisible(False)
