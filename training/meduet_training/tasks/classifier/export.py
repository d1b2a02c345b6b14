"""A trained classifier joins the model whose latents it reads: the best weights that validations found."""

from dataclasses import dataclass
from pathlib import Path

from meduet_training.engine.best_weights import read_best
from meduet_training.engine.resume import NETWORK, checkpoint_of, settings_of
from napari_meduet.core.analysis.classifier import ClassifierConfig
from napari_meduet.errors import InputError
from napari_meduet.models.configs import with_tuples
from napari_meduet.models.loading import load_model
from napari_meduet.models.saving import save_classifier


@dataclass(frozen=True, kw_only=True)
class ExportedClassifier:
    """What was written: the weights after a step of so many, and how they did in its validation."""

    step: int
    total_steps: int
    balanced_accuracy: float | None
    classes: tuple[str, ...]


def export_classifier(run_folder: Path, model_folder: Path) -> ExportedClassifier:
    """Put the run's best classifier into the model; without a validation so far, its newest.

    Raises:
        InputError: the folder holds no run of a classifier, or that of another model. Nothing was changed.
    """
    checkpoint = checkpoint_of(run_folder)
    settings = settings_of(checkpoint)
    objective = settings.training["objective"]
    if "classes" not in objective:
        raise InputError(
            f"{checkpoint.path.name}: holds no classifier; other networks have their own export."
        )
    model = load_model(model_folder, "cpu")
    read = settings.training["model_sha256"]
    if read != model.sha256:
        raise InputError(
            f"{model_folder.name}: this classifier reads the latents of another model "
            f"({str(read)[:8]}, not {model.sha256[:8]}); give the folder of that one."
        )
    best = read_best(run_folder)
    step = best.step if best else checkpoint.step
    accuracy = best.score if best else None
    save_classifier(
        model_folder,
        ClassifierConfig(**with_tuples(settings.training["network"])),
        best.tensors if best else checkpoint.under(f"{NETWORK}teacher."),
        objective["classes"],
        objective["modalities"],
        {
            "training": settings.training,
            "steps_taken": step,
            "validation_balanced_accuracy": accuracy,
            "domains": settings.domains,
        },
    )
    return ExportedClassifier(
        step=step,
        total_steps=objective["total_steps"],
        balanced_accuracy=accuracy,
        classes=tuple(objective["classes"]),
    )
