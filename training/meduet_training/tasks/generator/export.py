"""A trained generator joins the model whose factors it reads. What samples is the average of its weights."""

from pathlib import Path

from meduet_training.engine.resume import NETWORK, checkpoint_of, settings_of
from napari_meduet.core.synthesis.generator import Generator, GeneratorConfig
from napari_meduet.errors import InputError
from napari_meduet.models.configs import with_tuples
from napari_meduet.models.loading import load_model
from napari_meduet.models.saving import save_generator


def export_generator(run_folder: Path, model_folder: Path) -> tuple[int, int]:
    """Put the run's newest generator into the model; how many steps it took, of how many.

    Raises:
        InputError: the folder holds no run of a generator, or that of another model. Nothing was changed.
    """
    checkpoint = checkpoint_of(run_folder)
    settings = settings_of(checkpoint)
    try:
        generator = Generator(GeneratorConfig(**with_tuples(settings.training["network"])))
        generator.load_state_dict(checkpoint.under(f"{NETWORK}teacher."))
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"{checkpoint.path.name}: holds no generator; models are written by meduet-pretrain export."
        ) from error
    model = load_model(model_folder, "cpu")
    read = settings.training.get("model_sha256")
    if read != model.sha256:
        raise InputError(
            f"{model_folder.name}: this generator reads the factors of another model "
            f"({str(read)[:8]}, not {model.sha256[:8]}); give the folder of that one."
        )
    training = {"training": settings.training, "steps_taken": checkpoint.step, "domains": settings.domains}
    save_generator(model_folder, generator.config, generator.state_dict(), training)
    return checkpoint.step, settings.training["objective"]["total_steps"]
