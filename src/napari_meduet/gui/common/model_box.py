"""Drop-down list of models. It reads a model's card, never its weights."""

from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QWidget

from napari_meduet.gui.common.forms import ChoiceBox
from napari_meduet.models.card import ModelCard, read_card
from napari_meduet.models.folders import demo_model_path, installed_models

EMBEDDED = "embedded"


class ModelBox(ChoiceBox):
    """Offers the embedded model, the models in the user's model folder, and any other folder."""

    def __init__(self) -> None:
        super().__init__(browse=("Other folder…", ask_model))
        self.offer([("Embedded research model", EMBEDDED), *installed_models()], default=EMBEDDED)

    def path(self) -> Path | None:
        """Return the model folder; None for the embedded model."""
        return None if self.value() == EMBEDDED else self.value()

    def card(self) -> ModelCard:
        """Return the model's card.

        Raises:
            InputError: The folder is not a model.
        """
        return read_card(self.path() or demo_model_path())


def ask_model(parent: QWidget) -> Path | None:
    """Return the model folder that the user picks in a dialog; None if the user cancels."""
    path = QFileDialog.getExistingDirectory(parent, "Folder of a MeDUET model (the one with card.json)")
    return Path(path) if path else None
