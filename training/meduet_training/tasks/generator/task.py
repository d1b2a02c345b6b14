"""Declaration of the generator task, and how a trained generator is saved in its model."""

from pathlib import Path

from meduet_training.tasks.generator.config import GeneratorRun
from meduet_training.tasks.generator.presets import PRESETS
from meduet_training.tasks.task import Task, TrainedWeights
from napari_meduet.core.synthesis.generator import GeneratorConfig
from napari_meduet.core.synthesis.objective import GenerationConfig
from napari_meduet.models.saving import save_generator


def save(model_folder: Path, trained: TrainedWeights) -> None:
    """Save the averaged weights, which the sampler uses, in a model folder."""
    save_generator(model_folder, trained.network, trained.tensors, trained.history())


GENERATOR = Task(
    name="generator",
    run=GeneratorRun,
    presets=PRESETS,
    objective=GenerationConfig,
    network=GeneratorConfig,
    reads="factors",
    save=save,
)
