"""Use of a fine-tuned segmenter on the Teach page: apply it to open scans or a folder, or save it."""

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QPushButton, QWidget

from napari_meduet.gui.common.forms import LayerBox, fill_column, rows
from napari_meduet.gui.common.run_bar import RunBar
from napari_meduet.gui.layers import is_original_scan, is_scan, modality_of
from napari_meduet.models.folders import models_folder

if TYPE_CHECKING:
    from collections.abc import Collection

    from napari.components import ViewerModel
    from napari.layers import Layer

ALL_OTHERS = "all others"


class ApplyPanel(QWidget):
    """The scans to segment, and buttons to apply and to save. Emits `save_requested` with a model folder."""

    save_requested = Signal(object)  # Path

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
            "Scans to segment.\n"
            "Each open scan gets a new Labels layer. Labels of a folder are written to files."
        )
        self.apply = RunBar("Apply", on_cancel="finished scans keep their labels")
        self.save = QPushButton("Save as model…")
        self.save.setToolTip("Write a model folder for the Segment page and for meduet segment")
        fill_column(self, rows(("Apply to", self.scans)), self.apply, self.save)
        self.save.clicked.connect(self._ask_model)

    def folder(self) -> Path | None:
        """Return the chosen folder of scans; None if open scans are chosen."""
        chosen = self.scans.value()
        return chosen if isinstance(chosen, Path) else None

    def targets(self, samples: "Collection[Layer]", modalities: "Collection[str]") -> "list[Layer]":
        """Return the chosen open scans.

        Args:
            samples: Layers of the training samples; "all other open scans" leaves them out.
            modalities: Modalities that the segmenter can read; "all other open scans" leaves out others.
        """
        chosen = self.scans.value()
        if chosen != ALL_OTHERS:
            return [chosen]
        others = (scan for scan in self._viewer.layers if is_original_scan(scan) and scan not in samples)
        return [scan for scan in others if modality_of(scan) in (None, *modalities)]

    def _ask_model(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Name of the model", str(models_folder() / "fine-tuned"))
        if path:
            self.save_requested.emit(Path(path))


def ask_folder(parent: QWidget, title: str, start: Path | None = None) -> Path | None:
    """Return the folder that the user picks in a dialog; None if the user cancels."""
    path = QFileDialog.getExistingDirectory(parent, title, "" if start is None else str(start))
    return Path(path) if path else None
