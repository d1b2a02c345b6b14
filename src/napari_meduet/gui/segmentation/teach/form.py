"""The form of a lesson: examples, what their labels are called, and what nothing painted means."""

from typing import TYPE_CHECKING

from napari.layers import Labels
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QSpinBox, QVBoxLayout, QWidget

from napari_meduet.errors import InputError
from napari_meduet.gui.common.forms import ChoiceBox, rows
from napari_meduet.gui.layers import modality_of, name_features
from napari_meduet.gui.segmentation.teach.examples import TeachExamples
from napari_meduet.gui.segmentation.teach.names import TeachNames
from napari_meduet.gui.synthesis.mask_classes import label_names
from napari_meduet.pipelines.requests import MOST_TEACHING_STEPS, TeachRequest

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_meduet.gui.common.model_box import ModelBox

UNPAINTED = [("background", False), ("unknown: strokes only", True)]


class TeachForm(QWidget):
    """Emits `changed`; the model is the dock's."""

    changed = Signal()

    def __init__(self, viewer: "Viewer", model: "ModelBox") -> None:
        super().__init__()
        self._viewer, self._model = viewer, model
        self.examples = TeachExamples(viewer)
        self.names = TeachNames()
        self.unpainted = ChoiceBox()
        self.unpainted.offer(UNPAINTED, default=False)
        self.unpainted.setToolTip(
            "Background: every structure is painted whole, the rest is none of them.\n"
            "Unknown: a few strokes are enough, also some on the background."
        )
        self.steps = QSpinBox()
        self.steps.setRange(1, MOST_TEACHING_STEPS)
        self.steps.setSingleStep(50)
        self.steps.setValue(TeachRequest.steps)
        self.steps.setToolTip("How long to learn; Stop and keep ends it sooner")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (QLabel("Examples: scans and their labels"), self.examples, self.names):
            column.addWidget(part)
        column.addLayout(rows(("Unpainted is", self.unpainted), ("Steps", self.steps)))
        self.examples.changed.connect(self._examples_changed)
        self.names.changed.connect(self._names_changed)
        self.names.picked.connect(self._paint_with)
        self.unpainted.changed.connect(self._unpainted_changed)
        self._examples_changed()

    def disabled_reason(self) -> str:
        """Why there is nothing to learn yet; empty where there is."""
        try:
            card = self._model.card()
        except InputError as error:
            return str(error)
        for scan, _ in self.examples.pairs():
            modality = modality_of(scan)
            if modality is not None and modality not in card.modalities:
                known = " and ".join(card.modalities)
                return f"{scan.name!r} is {modality}; {card.name} knows {known}: choose another model."
        disabled_reason = self.examples.disabled_reason() or self.names.disabled_reason()
        if disabled_reason:
            return disabled_reason
        painted = self.examples.numbers()
        if self.unpainted.value() and self.names.background() not in painted:
            return f"Paint a few strokes of background too, with label {self.names.background()}."
        return ""

    def _examples_changed(self) -> None:
        suggested: dict[int, str] = {}
        for _, labels in reversed(self.examples.pairs()):  # the first example has the last word
            suggested |= label_names(labels)
        self.names.find(self.examples.numbers(), suggested)
        self.changed.emit()

    def _names_changed(self) -> None:
        names = self.names.names()
        for layer in self.examples.paintings():  # napari tells the name of a label under the mouse
            layer.features = name_features(names)
        self.changed.emit()

    def _unpainted_changed(self) -> None:
        self.names.want_background(self.unpainted.value())
        self.changed.emit()

    def _paint_with(self, label: int) -> None:
        layer = self._viewer.layers.selection.active
        labels = [labels for _, labels in self.examples.pairs()]
        if layer not in labels and labels:
            layer = self._viewer.layers.selection.active = labels[-1]
        if isinstance(layer, Labels):
            layer.selected_label = label
