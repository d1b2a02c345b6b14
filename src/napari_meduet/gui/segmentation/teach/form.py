"""The form of the Teach page: training samples, names of labels, and the meaning of unpainted voxels."""

from typing import TYPE_CHECKING

from napari.layers import Labels
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QSpinBox, QWidget

from napari_meduet.errors import InputError
from napari_meduet.gui.common.forms import ChoiceBox, fill_column, rows
from napari_meduet.gui.common.label_features import label_names, name_features
from napari_meduet.gui.layers import modality_of
from napari_meduet.gui.segmentation.teach.label_names import LabelNames
from napari_meduet.gui.segmentation.teach.sample_list import SampleList
from napari_meduet.pipelines.requests import MOST_TEACHING_STEPS, TeachRequest

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_meduet.gui.common.model_box import ModelBox

UNPAINTED = [("background", False), ("unknown: strokes only", True)]


class FinetuningForm(QWidget):
    """Settings of an interactive fine-tuning. The dock owns the model box."""

    changed = Signal()

    def __init__(self, viewer: "Viewer", model: "ModelBox") -> None:
        super().__init__()
        self._viewer, self._model = viewer, model
        self.samples = SampleList(viewer)
        self.names = LabelNames()
        self.unpainted = ChoiceBox()
        self.unpainted.offer(UNPAINTED, default=False)
        self.unpainted.setToolTip(
            "Meaning of unpainted voxels.\n"
            "Background: choose this if every structure is painted completely.\n"
            "Unknown: choose this if you painted strokes, including some on the background."
        )
        self.steps = QSpinBox()
        self.steps.setRange(1, MOST_TEACHING_STEPS)
        self.steps.setSingleStep(50)
        self.steps.setValue(TeachRequest.steps)
        self.steps.setToolTip("Number of training steps; Stop and keep ends the training earlier")
        settings = rows(("Unpainted is", self.unpainted), ("Steps", self.steps))
        fill_column(self, QLabel("Samples: scans and their labels"), self.samples, self.names, settings)
        self.samples.changed.connect(self._samples_changed)
        self.names.changed.connect(self._names_changed)
        self.names.picked.connect(self._paint_with)
        self.unpainted.changed.connect(self._unpainted_changed)
        self._samples_changed()

    def disabled_reason(self) -> str:
        """Return why the training cannot start; empty if it can."""
        try:
            card = self._model.card()
        except InputError as error:
            return str(error)
        for scan, _ in self.samples.pairs():
            modality = modality_of(scan)
            if modality is not None and modality not in card.modalities:
                known = " and ".join(card.modalities)
                return f"{scan.name!r} is {modality}, but {card.name} reads {known}: choose another model."
        reason = self.samples.disabled_reason() or self.names.disabled_reason()
        if reason:
            return reason
        painted = self.samples.numbers()
        if self.unpainted.value() and self.names.background() not in painted:
            return f"Paint a few strokes of background too, with label {self.names.background()}."
        return ""

    def _samples_changed(self) -> None:
        suggested: dict[int, str] = {}
        for _, labels in reversed(self.samples.pairs()):  # names of the first sample take precedence
            suggested |= label_names(labels)
        self.names.show_painted(self.samples.numbers(), suggested)
        self.changed.emit()

    def _names_changed(self) -> None:
        names = self.names.names()
        for layer in self.samples.paintings():  # napari shows the name of the label under the mouse
            layer.features = name_features(names)
        self.changed.emit()

    def _unpainted_changed(self) -> None:
        self.names.show_background_row(self.unpainted.value())
        self.changed.emit()

    def _paint_with(self, label: int) -> None:
        layer = self._viewer.layers.selection.active
        labels = [labels for _, labels in self.samples.pairs()]
        if layer not in labels and labels:
            layer = self._viewer.layers.selection.active = labels[-1]
        if isinstance(layer, Labels):
            layer.selected_label = label
