"""`meduet-train`: trainings for a model, and the tokenizer. `meduet-pretrain` is a program of its own.

Torch is imported inside the commands, so that `--help` opens at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meduet_training.commands.options import (
    EMBEDDED_MODEL,
    SHARED_DATA,
    BatchOption,
    CacheDirOption,
    ConfigOption,
    DataOption,
    DeviceOption,
    LabelledDataOption,
    LabelNamesOption,
    ModalityOption,
    ModelOption,
    RunDeviceOption,
    RunFolderArgument,
    RunFolderOption,
    SettingsOption,
    StepsOption,
)
from meduet_training.tasks.choices import (
    FinetuningPreset,
    FinetuningStart,
    FinetuningTask,
    GeneratorPreset,
    GeneratorStart,
    Styles,
)

if TYPE_CHECKING:
    from meduet_training.tasks.task import Task, TrainedWeights

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train tokenizers, generators, ControlNets, segmenters and classifiers, and export them to a model.",
)

CohortOption = Annotated[
    Path, typer.Option("--data", help="Scans: a manifest, or a folder with an index.json.")
]
StageCacheOption = Annotated[
    Path, typer.Option("--cache", help="Cache directory for finished stages. A second start continues there.")
]
IntoOption = Annotated[
    Path,
    typer.Option(
        help="Model folder that the run was trained with. An earlier export of this kind is replaced."
    ),
]
FinetuningPresetOption = Annotated[
    FinetuningPreset | None,
    typer.Option("--preset", help="Network head, batch and length of the run. Default: tiny."),
]
FinetuningStartOption = Annotated[
    FinetuningStart | None,
    typer.Option("--start", help="Initial weights: of the model's encoder, or random. Default: meduet."),
]
StylesOption = Annotated[
    Styles | None,
    typer.Option(
        "--styles",
        help="Column of Table 12: how many crops are shown in other styles. Default: auto, by the number of "
        "labelled scans.",
    ),
]
PatienceOption = Annotated[
    int | None,
    typer.Option(
        "--patience",
        help="Number of validations without improvement after which the run ends; 0: never. Default: 8.",
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target", help="Column with the class of each scan, or one of domain, modality and sequence."
    ),
]


@app.command()
def tokenizer(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the weights and the log.")],
    data: CohortOption = SHARED_DATA,
    cache: StageCacheOption = Path("caches/demo"),
    device: DeviceOption = "auto",
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Number of training steps. Default: 2600 (CPU) or 9000 (GPU)."),
    ] = None,
) -> None:
    """Train the wavelet tokenizer on the train split of a cohort."""
    from dataclasses import replace

    from meduet_training.data.caches.prepared import load_prepared, prepare_cohort
    from meduet_training.data.cohort.scans import read_cohort, trainable
    from meduet_training.runtime.fabric import make_fabric
    from meduet_training.runtime.messages import exit_with_message
    from meduet_training.tasks.pretraining.demo_recipe import demo as recipe_for
    from meduet_training.tasks.tokenizer.run import run_tokenizer_training

    with exit_with_message():
        fabric = make_fabric(device)
        paths = prepare_cohort(trainable(read_cohort(data)), cache / "prepared")
        training = recipe_for(fabric.device.type).tokenizer
        training = replace(training, steps=steps or training.steps)
        run_tokenizer_training(fabric, [load_prepared(path) for path in paths], training, output)


@app.command()
def demo(
    data: CohortOption = SHARED_DATA,
    cache: StageCacheOption = Path("caches/demo"),
    output: Annotated[Path, typer.Option("--output", "-o", help="Model folder.")] = EMBEDDED_MODEL,
    device: DeviceOption = "auto",
) -> None:
    """Train the embedded model in all stages: tokenizer, latent windows, pretraining, model folder."""
    from meduet_training.runtime.fabric import make_fabric
    from meduet_training.runtime.messages import exit_with_message
    from meduet_training.tasks.pretraining.demo_model import make_demo_model
    from meduet_training.tasks.pretraining.demo_recipe import demo as recipe_for

    with exit_with_message():
        fabric = make_fabric(device)
        make_demo_model(fabric, data, cache, output, recipe_for(fabric.device.type))


@app.command()
def generator(
    output: RunFolderOption,
    config: ConfigOption = None,
    model: ModelOption = None,
    data: DataOption = None,
    cache: CacheDirOption = None,
    preset: Annotated[
        GeneratorPreset | None, typer.Option(help="Network, batch and length of the run. Default: tiny.")
    ] = None,
    start: Annotated[
        GeneratorStart | None,
        typer.Option(help="Initial weights: of the model's encoder, or random. Default: warm."),
    ] = None,
    steps: StepsOption = None,
    batch: BatchOption = None,
    device: RunDeviceOption = None,
    settings: SettingsOption = None,
) -> None:
    """Train a generator of new volumes on a model's factors, or resume the run in the folder.

    docs/how-to/train-a-generator.md describes the configuration.
    """
    from meduet_training.runtime.messages import exit_with_message, report_on_rank_zero
    from meduet_training.tasks.generator.run import run_generator
    from meduet_training.tasks.generator.task import GENERATOR

    options = {
        "preset": preset,
        "start": start,
        "data": {"model": model, "scans": data, "cache_dir": cache},
        **_shared(steps, batch, device),
    }
    with exit_with_message():
        with report_on_rank_zero():
            run = GENERATOR.requested(output, config, options, settings)
        run_generator(run, output)


@app.command("export-generator")
def export_generator(run_folder: RunFolderArgument, into: IntoOption) -> None:
    """Write the generator of a run, finished or not, into its model, for meduet and napari."""
    from meduet_training.tasks.generator.task import GENERATOR

    _export(GENERATOR, run_folder, into)


@app.command()
def control(
    output: RunFolderOption,
    config: ConfigOption = None,
    model: Annotated[Path | None, typer.Option(help="Model folder with a generator.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Scans with labels: a manifest, or a folder with an index.json."),
    ] = None,
    cache: CacheDirOption = None,
    steps: StepsOption = None,
    batch: BatchOption = None,
    device: RunDeviceOption = None,
    settings: SettingsOption = None,
) -> None:
    """Train a ControlNet, which makes a generator follow masks, or resume the run in the folder.

    docs/how-to/train-a-generator.md describes the configuration.
    """
    from meduet_training.runtime.messages import exit_with_message, report_on_rank_zero
    from meduet_training.tasks.control.run import run_control
    from meduet_training.tasks.control.task import CONTROL

    options = {
        "data": {"model": model, "scans": data, "cache_dir": cache},
        **_shared(steps, batch, device),
    }
    with exit_with_message():
        with report_on_rank_zero():
            run = CONTROL.requested(output, config, options, settings)
        run_control(run, output)


@app.command("export-control")
def export_control(run_folder: RunFolderArgument, into: IntoOption) -> None:
    """Write the ControlNet of a run, finished or not, into its model, for meduet and napari."""
    from meduet_training.tasks.control.task import CONTROL

    _export(CONTROL, run_folder, into)


@app.command()
def segmenter(
    output: RunFolderOption,
    config: ConfigOption = None,
    model: ModelOption = None,
    data: LabelledDataOption = None,
    names: LabelNamesOption = None,
    modality: ModalityOption = None,
    cache: CacheDirOption = None,
    preset: FinetuningPresetOption = None,
    start: FinetuningStartOption = None,
    styles: StylesOption = None,
    patience: PatienceOption = None,
    steps: StepsOption = None,
    batch: BatchOption = None,
    device: RunDeviceOption = None,
    settings: SettingsOption = None,
) -> None:
    """Train a segmenter on a model's latents from labelled scans, or resume the run in the folder.

    docs/how-to/train-a-segmenter.md describes the configuration.
    """
    from meduet_training.runtime.messages import exit_with_message, report_on_rank_zero
    from meduet_training.tasks.segmenter.run import run_segmenter
    from meduet_training.tasks.segmenter.task import SEGMENTER

    options = {
        "preset": preset,
        "start": start,
        "styles": styles,
        "patience": patience,
        "data": {
            "model": model, "scans": data, "names": names, "modality": modality, "cache_dir": cache
        },
        **_shared(steps, batch, device),
    }  # fmt: skip
    with exit_with_message():
        with report_on_rank_zero():
            run = SEGMENTER.requested(output, config, options, settings)
        run_segmenter(run, output)


@app.command("export-segmenter")
def export_segmenter(run_folder: RunFolderArgument, into: IntoOption) -> None:
    """Write the best segmenter of a run, finished or not, into its model, for meduet and napari."""
    from meduet_training.tasks.segmenter.task import SEGMENTER

    _export(SEGMENTER, run_folder, into, score="validation Dice")


@app.command()
def classifier(
    output: RunFolderOption,
    config: ConfigOption = None,
    model: ModelOption = None,
    data: DataOption = None,
    target: TargetOption = None,
    classes: Annotated[
        str | None, typer.Option(help="Use only these classes, separated by commas. Default: all.")
    ] = None,
    modality: ModalityOption = None,
    cache: CacheDirOption = None,
    preset: FinetuningPresetOption = None,
    start: FinetuningStartOption = None,
    styles: StylesOption = None,
    patience: PatienceOption = None,
    steps: StepsOption = None,
    batch: BatchOption = None,
    device: RunDeviceOption = None,
    settings: SettingsOption = None,
) -> None:
    """Train a classifier of scans on a model's latents, or resume the run in the folder.

    docs/how-to/classify.md describes the configuration.
    """
    from meduet_training.runtime.messages import exit_with_message, report_on_rank_zero
    from meduet_training.tasks.classifier.run import run_classifier
    from meduet_training.tasks.classifier.task import CLASSIFIER

    options = {
        "preset": preset,
        "start": start,
        "styles": styles,
        "patience": patience,
        "data": {
            "model": model,
            "scans": data,
            "target": target,
            "classes": [name.strip() for name in classes.split(",")] if classes else None,
            "modality": modality,
            "cache_dir": cache,
        },
        **_shared(steps, batch, device),
    }
    with exit_with_message():
        with report_on_rank_zero():
            run = CLASSIFIER.requested(output, config, options, settings)
        run_classifier(run, output)


@app.command("export-classifier")
def export_classifier(run_folder: RunFolderArgument, into: IntoOption) -> None:
    """Write the best classifier of a run, finished or not, into its model, for meduet."""
    from meduet_training.tasks.classifier.task import CLASSIFIER

    trained = _export(CLASSIFIER, run_folder, into, score="balanced accuracy")
    typer.echo(f"Its classes are {', '.join(trained.objective['classes'])}.")


@app.command("label-efficiency")
def label_efficiency(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the study.")],
    task: Annotated[
        FinetuningTask, typer.Option(help="Task that is trained with few and with many labels.")
    ] = "segmentation",
    subsets: Annotated[
        str,
        typer.Option(
            help="Subsets of the labelled patients, separated by commas: `one` (one patient for each class), "
            "or percent of the patients."
        ),
    ] = "one,10,50,100",
    arms: Annotated[
        str,
        typer.Option(help="Trainings to compare, separated by commas. Gains are relative to the first."),
    ] = "scratch,meduet,meduet+style",
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of repetitions, each with other patients, weights and crops.")
    ] = 5,
    unseen: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN", help="Test on this domain and learn from the others. May be repeated."
        ),
    ] = None,
    config: ConfigOption = None,
    model: ModelOption = None,
    data: LabelledDataOption = None,
    names: LabelNamesOption = None,
    target: TargetOption = None,
    modality: ModalityOption = None,
    cache: CacheDirOption = None,
    preset: FinetuningPresetOption = None,
    steps: StepsOption = None,
    batch: BatchOption = None,
    device: RunDeviceOption = None,
    settings: SettingsOption = None,
) -> None:
    """Measure label efficiency: train with few and many labels, from scratch and from MeDUET, and compare.

    docs/how-to/few-labels.md describes the study. --config is a file of `meduet-train segmenter` or
    `meduet-train classifier`.
    """
    from meduet_training.runtime.messages import exit_with_message, is_rank_zero, report_on_rank_zero
    from meduet_training.studies.label_efficiency.options import parse_arms, study_task
    from meduet_training.studies.label_efficiency.runner import run_study
    from meduet_training.studies.label_efficiency.subsets import parse_subsets
    from meduet_training.studies.label_efficiency.tables import as_markdown

    options = {
        "preset": preset,
        "data": {
            "model": model,
            "scans": data,
            "names": names,
            "target": target,
            "modality": modality,
            "cache_dir": cache,
            "unseen": unseen or None,
        },
        **_shared(steps, batch, device),
    }
    with exit_with_message():
        with report_on_rank_zero():
            parsed_subsets, parsed_arms = parse_subsets(subsets), parse_arms(arms)
            chosen = study_task(task, output, config, options, settings)
        study = run_study(chosen, parsed_subsets, parsed_arms, seeds, output)
        if is_rank_zero():
            typer.echo(as_markdown(study), nl=False)


@app.command()
def metrics(
    model: Annotated[
        Path, typer.Option(help="Model folder. Its card is rewritten with the results.")
    ] = EMBEDDED_MODEL,
    data: CohortOption = SHARED_DATA,
    only: Annotated[
        str | None, typer.Option(help="Measure only these metrics, separated by commas. Default: all.")
    ] = None,
    document: Annotated[
        Path | None,
        typer.Option(help="Markdown page with markers for the tables, such as docs/benchmarks.md."),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Measure a model on the patients of the test split, and write the metrics on its card."""
    from meduet_training.evaluation.card.metrics import SECTIONS, measure_model
    from meduet_training.runtime.messages import exit_with_message

    names = [name.strip() for name in only.split(",")] if only else list(SECTIONS)
    with exit_with_message():
        measure_model(model, data, names, device, document, typer.echo)


def _shared(steps: int | None, batch: int | None, device: str | None) -> dict[str, Any]:
    """Return the options that all trainings share, nested like a configuration file."""
    return {
        "training": {"batch": batch, "objective": {"total_steps": steps}},
        "hardware": {"device": device},
    }


def _export(task: "Task[Any]", run_folder: Path, into: Path, score: str = "") -> "TrainedWeights":
    """Export the weights of a run, print which weights they are, and return them.

    Args:
        score: name of the validation score; "" if the newest weights are exported.
    """
    from meduet_training.runtime.messages import exit_with_message

    with exit_with_message():
        trained = task.export(run_folder, into)
        result = f", {score} {trained.score:.3f}," if trained.score is not None else ""
        typer.echo(
            f"Wrote the {task.name} after {trained.step} of {trained.total_steps} steps{result} into {into}."
        )
    return trained
