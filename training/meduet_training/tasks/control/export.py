"""A trained ControlNet joins the model whose generator it steers. It is the average that samples."""

from pathlib import Path

import torch

from meduet_training.engine.resume import NETWORK, checkpoint_of, settings_of
from napari_meduet.core.synthesis.control import ControlNet
from napari_meduet.errors import InputError
from napari_meduet.models.card import MaskClass
from napari_meduet.models.loading import load_model
from napari_meduet.models.saving import save_control


def export_control(run_folder: Path, model_folder: Path) -> tuple[int, int]:
    """Put the run's newest ControlNet into the model; how many steps it took, of how many.

    Raises:
        InputError: the folder holds no run of a ControlNet, or of another generator. Nothing was changed.
    """
    checkpoint = checkpoint_of(run_folder)
    settings = settings_of(checkpoint)
    objective = settings.training["objective"]
    if "labels" not in objective:
        raise InputError(f"{checkpoint.path.name}: holds no ControlNet; generators go by export-generator.")
    generator = load_model(model_folder, "cpu").generator
    trained_with = checkpoint.under(f"{NETWORK}generator.")
    own = {} if generator is None else generator.state_dict()
    if (
        generator is None
        or own.keys() != trained_with.keys()
        or not all(torch.equal(own[name], tensor) for name, tensor in trained_with.items())
    ):
        raise InputError(
            f"{model_folder.name}: this ControlNet was trained with another generator than the one there; "
            "train it again."
        )
    control = ControlNet(generator, len(objective["labels"]))
    control.load_state_dict(checkpoint.under(f"{NETWORK}teacher."))
    pairs = zip(objective["labels"], objective["names"], strict=True)
    classes = [MaskClass(label=label, name=name) for label, name in pairs]
    training = {"training": settings.training, "steps_taken": checkpoint.step, "domains": settings.domains}
    save_control(model_folder, control, classes, training)
    return checkpoint.step, objective["total_steps"]
