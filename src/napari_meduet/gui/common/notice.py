"""One sentence for a person, and, where an end was unexpected, the whole story folded beneath it."""

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QLabel, QPlainTextEdit, QPushButton, QVBoxLayout, QWidget

from napari_meduet.gui.common.background import Problem
from napari_meduet.gui.common.section import Section


class Notice(QWidget):
    """Hidden while there is nothing to say."""

    def __init__(self) -> None:
        super().__init__()
        self.sentence = QLabel()
        self.sentence.setWordWrap(True)
        self.sentence.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.sentence.setStyleSheet("QLabel { border-left: 3px solid #d9534f; padding-left: 6px; }")
        self.story = QPlainTextEdit()
        self.story.setReadOnly(True)
        self.story.setFixedHeight(120)
        copy = QPushButton("Copy")
        copy.clicked.connect(lambda: QApplication.clipboard().setText(self.story.toPlainText()))
        inner = QWidget()
        folded = QVBoxLayout(inner)
        folded.setContentsMargins(0, 0, 0, 0)
        folded.addWidget(self.story)
        folded.addWidget(copy)
        self.details = Section("Details", inner)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.sentence)
        column.addWidget(self.details)
        self.clear()

    def show_problem(self, problem: Problem) -> None:
        """Say what went wrong."""
        self.sentence.setText(problem.sentence)
        self.story.setPlainText(problem.details)
        self.details.set_open(False)
        self.details.setVisible(bool(problem.details))
        self.setVisible(True)

    def clear(self) -> None:
        """Nothing to say any more."""
        self.setVisible(False)
