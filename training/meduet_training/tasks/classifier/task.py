"""Declaration of the classifier task, and how a trained classifier is saved in its model."""

from pathlib import Path

from meduet_training.tasks.classifier.config import ClassifierRun
from meduet_training.tasks.classifier.presets import PRESETS
from meduet_training.tasks.finetuning.objectives import ClassificationConfig
from meduet_training.tasks.task import Task, TrainedWeights
from napari_meduet.core.analysis.classifier import ClassifierConfig
from napari_meduet.models.saving import save_classifier


def save(model_folder: Path, trained: TrainedWeights) -> None:
    """Save the weights of the best validation, or the newest if there was none, in a model folder."""
    objective = trained.objective
    history = trained.history(validation_balanced_accuracy=trained.score)
    save_classifier(
        model_folder,
        trained.network,
        trained.tensors,
        objective["classes"],
        objective["modalities"],
        history,
    )


CLASSIFIER = Task(
    name="classifier",
    run=ClassifierRun,
    presets=PRESETS,
    objective=ClassificationConfig,
    network=ClassifierConfig,
    weights="best",
    reads="latents",
    save=save,
)
