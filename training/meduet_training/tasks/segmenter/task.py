"""Declaration of the segmenter task, and how a trained segmenter is saved in its model."""

from pathlib import Path

from meduet_training.tasks.finetuning.objectives import SegmentationConfig
from meduet_training.tasks.segmenter.config import SegmenterRun
from meduet_training.tasks.segmenter.presets import PRESETS
from meduet_training.tasks.task import Task, TrainedWeights
from napari_meduet.core.analysis.unetr import UNETRConfig
from napari_meduet.models.card import MaskClass
from napari_meduet.models.saving import save_segmenter


def save(model_folder: Path, trained: TrainedWeights) -> None:
    """Save the weights of the best validation, or the newest if there was none, in a model folder."""
    objective = trained.objective
    pairs = zip(objective["labels"], objective["names"], strict=True)
    save_segmenter(
        model_folder,
        trained.network,
        trained.tensors,
        [MaskClass(label=label, name=name) for label, name in pairs],
        objective["modalities"],
        trained.history(validation_dice=trained.score),
        objective["sequences"],
    )


SEGMENTER = Task(
    name="segmenter",
    run=SegmenterRun,
    presets=PRESETS,
    objective=SegmentationConfig,
    network=UNETRConfig,
    weights="best",
    reads="latents",
    save=save,
)
