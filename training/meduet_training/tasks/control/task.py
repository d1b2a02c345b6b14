"""Declaration of the ControlNet task, and how a trained ControlNet is saved in its model."""

from pathlib import Path

import torch

from meduet_training.engine.resume import NETWORK
from meduet_training.tasks.control.config import ControlRun
from meduet_training.tasks.generator.presets import control
from meduet_training.tasks.task import Task, TrainedWeights
from napari_meduet.core.synthesis.control import ControlNet
from napari_meduet.core.synthesis.control_objective import ControlConfig
from napari_meduet.core.synthesis.generator import GeneratorConfig
from napari_meduet.errors import InputError
from napari_meduet.models.card import MaskClass
from napari_meduet.models.loading import load_model
from napari_meduet.models.saving import save_control


def save(model_folder: Path, trained: TrainedWeights) -> None:
    """Save the averaged weights, which the sampler uses, in a model folder.

    Raises:
        InputError: the model has no generator, or another than the one of the run. Nothing was changed.
    """
    generator = load_model(model_folder, "cpu").generator
    trained_with = trained.checkpoint.under(f"{NETWORK}generator.")
    weights = {} if generator is None else generator.state_dict()
    if (
        generator is None
        or weights.keys() != trained_with.keys()
        or not all(torch.equal(weights[name], tensor) for name, tensor in trained_with.items())
    ):
        raise InputError(
            f"{model_folder.name}: this ControlNet was trained with another generator than the one there; "
            "train it again."
        )
    labels, names = trained.objective["labels"], trained.objective["names"]
    network = ControlNet(generator, len(labels))
    network.load_state_dict(trained.tensors)
    classes = [MaskClass(label=label, name=name) for label, name in zip(labels, names, strict=True)]
    save_control(model_folder, network, classes, trained.history())


CONTROL = Task(
    name="ControlNet",
    run=ControlRun,
    presets={"tiny": control},
    objective=ControlConfig,
    network=GeneratorConfig,
    save=save,
)
