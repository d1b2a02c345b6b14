"""What is done with a network that was taught: other open scans, a folder of them, a model to keep."""

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QPushButton, QVBoxLayout, QWidget

from napari_meduet.gui.common.forms import LayerBox, rows
from napari_meduet.gui.common.run_bar import RunBar
from napari_meduet.gui.layers import is_scan, is_synthetic, modality_of
from napari_meduet.models.folders import models_folder

if TYPE_CHECKING:
    from collections.abc import Collection

    from napari.components import ViewerModel
    from napari.layers import Layer

ALL_OTHERS = "all others"


class TeachUse(QWidget):
    """What it is applied to, and where a model of it is kept; emits `model_wanted` with that folder."""

    model_wanted = Signal(object)  # Path

    def __init__(self, viewer: "ViewerModel") -> None:
        super().__init__()
        self._viewer = viewer
        self.scans = LayerBox(
            viewer,
            is_scan,
            placeholder="",
            default=lambda layers: ALL_OTHERS,
            others=lambda: [("all other open scans", ALL_OTHERS)],
            browse=("A folder of scans…", lambda parent: ask_folder(parent, "Folder with scans")),
        )
        self.scans.setToolTip(
            "Open scans each get a Labels layer of their own; of a folder's scans labels are written as files"
        )
        self.apply = RunBar("Apply", on_cancel="scans that are done keep their labels")
        self.save = QPushButton("Save as model…")
        self.save.setToolTip("Writes a model folder, for Segment here and for meduet segment")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(rows(("Apply to", self.scans)))
        column.addWidget(self.apply)
        column.addWidget(self.save)
        self.save.clicked.connect(self._ask_model)

    def folder(self) -> Path | None:
        """The folder of scans, where one is chosen."""
        chosen = self.scans.value()
        return chosen if isinstance(chosen, Path) else None

    def targets(self, examples: "Collection[Layer]", modalities: "Collection[str]") -> "list[Layer]":
        """The open scans that are chosen.

        Args:
            examples: what it was taught with, which are no others.
            modalities: of these; others cannot be segmented.
        """
        chosen = self.scans.value()
        if chosen != ALL_OTHERS:
            return [chosen]
        scans = (layer for layer in self._viewer.layers if is_scan(layer) and not is_synthetic(layer))
        others = (scan for scan in scans if scan not in examples)
        return [scan for scan in others if modality_of(scan) in (None, *modalities)]

    def _ask_model(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Name of the model", str(models_folder() / "taught"))
        if path:
            self.model_wanted.emit(Path(path))


def ask_folder(parent: QWidget, title: str, start: Path | None = None) -> Path | None:
    """A folder the person picks."""
    path = QFileDialog.getExistingDirectory(parent, title, "" if start is None else str(start))
    return Path(path) if path else None
