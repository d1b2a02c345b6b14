"""A trained segmenter joins the model whose latents it reads: the best weights that validations found."""

from dataclasses import dataclass
from pathlib import Path

from meduet_training.engine.best_weights import read_best
from meduet_training.engine.resume import NETWORK, checkpoint_of, settings_of
from napari_meduet.core.analysis.unetr import UNETRConfig
from napari_meduet.errors import InputError
from napari_meduet.models.card import MaskClass
from napari_meduet.models.configs import with_tuples
from napari_meduet.models.loading import load_model
from napari_meduet.models.saving import save_segmenter


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written: the weights after a step of so many, and their validation Dice where there is one."""

    step: int
    total_steps: int
    dice: float | None


def export_segmenter(run_folder: Path, model_folder: Path) -> Exported:
    """Put the run's best segmenter into the model; without a validation so far, its newest.

    Raises:
        InputError: the folder holds no run of a segmenter, or that of another model. Nothing was changed.
    """
    checkpoint = checkpoint_of(run_folder)
    settings = settings_of(checkpoint)
    objective = settings.training["objective"]
    if "names" not in objective or "num_classes" not in settings.training["network"]:
        raise InputError(f"{checkpoint.path.name}: holds no segmenter; other networks have their own export.")
    model = load_model(model_folder, "cpu")
    read = settings.training["model_sha256"]
    if read != model.sha256:
        raise InputError(
            f"{model_folder.name}: this segmenter reads the latents of another model "
            f"({str(read)[:8]}, not {model.sha256[:8]}); give the folder of that one."
        )
    best = read_best(run_folder)
    pairs = zip(objective["labels"], objective["names"], strict=True)
    save_segmenter(
        model_folder,
        UNETRConfig(**with_tuples(settings.training["network"])),
        best.tensors if best else checkpoint.under(f"{NETWORK}teacher."),
        [MaskClass(label=label, name=name) for label, name in pairs],
        objective["modalities"],
        {
            "training": settings.training,
            "steps_taken": best.step if best else checkpoint.step,
            "validation_dice": best.score if best else None,
            "domains": settings.domains,
        },
        objective.get("sequences", ()),
    )
    return Exported(
        step=best.step if best else checkpoint.step,
        total_steps=objective["total_steps"],
        dice=best.score if best else None,
    )
