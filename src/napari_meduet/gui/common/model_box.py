"""Chooses the model, and reads what its card says of it. No weight is read."""

from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QWidget

from napari_meduet.gui.common.forms import ChoiceBox
from napari_meduet.models.card import ModelCard, read_card
from napari_meduet.models.folders import demo_model_path, installed_models

EMBEDDED = "embedded"


class ModelBox(ChoiceBox):
    """Offers the embedded model, those of this person, and any other folder."""

    def __init__(self) -> None:
        super().__init__(browse=("Other folder…", ask_model))
        self.offer([("Embedded research model", EMBEDDED), *installed_models()], default=EMBEDDED)

    def path(self) -> Path | None:
        """The folder of the model; None for the embedded one."""
        return None if self.value() == EMBEDDED else self.value()

    def card(self) -> ModelCard:
        """What the model says of itself.

        Raises:
            InputError: the folder is no model.
        """
        return read_card(self.path() or demo_model_path())


def ask_model(parent: QWidget) -> Path | None:
    """A model folder the person picks."""
    path = QFileDialog.getExistingDirectory(parent, "Folder of a MeDUET model (the one with card.json)")
    return Path(path) if path else None
