"""`meduet-train`: the smaller trainings, each a command. `meduet-pretrain` has a program of its own."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Data = Annotated[Path, typer.Option(help="Folder of scans with an index.json, or a manifest.")]
Cache = Annotated[Path, typer.Option(help="Where stages are kept, so that an interrupted run goes on.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
RunFolder = Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")]
Steps = Annotated[int | None, typer.Option(help="Length of the run.")]
Batch = Annotated[int | None, typer.Option(help="Volumes a step, over all processes.")]
RunDevice = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any other, as training.clip=0.5; may be repeated."),
]
SHARED_DATA = Path("../shared/data")
EMBEDDED = Path("src/napari_meduet/models/demo")


@app.command()
def tokenizer(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for weights and log.")],
    data: Data = SHARED_DATA,
    cache: Cache = Path("caches/demo"),
    device: Device = "auto",
    steps: Annotated[int | None, typer.Option(min=1, help="The default fits the device.")] = None,
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
    data: Data = SHARED_DATA,
    cache: Cache = Path("caches/demo"),
    output: Annotated[Path, typer.Option("--output", "-o", help="The model folder.")] = EMBEDDED,
    device: Device = "auto",
) -> None:
    """Train the embedded model: tokenizer, latent windows, pretraining, card."""
    from meduet_training.runtime.fabric import make_fabric
    from meduet_training.runtime.messages import exit_with_message
    from meduet_training.tasks.pretraining.demo_model import make_demo_model
    from meduet_training.tasks.pretraining.demo_recipe import demo as recipe_for

    with exit_with_message():
        fabric = make_fabric(device)
        make_demo_model(fabric, data, cache, output, recipe_for(fabric.device.type))


class GeneratorPreset(StrEnum):
    tiny = "tiny"
    small = "small"
    paper = "paper"


class Start(StrEnum):
    warm = "warm"
    scratch = "scratch"


@app.command()
def generator(
    output: RunFolder,
    config: Annotated[
        Path | None, typer.Option(help="A YAML file (docs/how-to/train-a-generator.md).")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="A model folder: gives latents, factors and the warm start.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A manifest, or a folder with an index.json.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where latents and factors are kept.")] = None,
    preset: Annotated[
        GeneratorPreset | None, typer.Option(help="Size of network, batch and run; tiny by default.")
    ] = None,
    start: Annotated[
        Start | None, typer.Option(help="From the model's encoder, the default, or from scratch.")
    ] = None,
    steps: Steps = None,
    batch: Batch = None,
    device: RunDevice = None,
    settings: Settings = None,
) -> None:
    """Train a generator of new volumes on a model's factors, or go on with the run in the folder."""
    from meduet_training.runtime.messages import report_on_rank_zero, exit_with_message
    from meduet_training.tasks.config import requested_run
    from meduet_training.tasks.generator.config import read_generator_run
    from meduet_training.tasks.generator.run import run_generator

    said = {
        "preset": preset and preset.value,
        "start": start and start.value,
        "data": {"model": model, "scans": data, "cache_dir": cache},
        "training": {"batch": batch, "objective": {"total_steps": steps}},
        "hardware": {"device": device},
    }
    with exit_with_message():
        with report_on_rank_zero():
            chosen = requested_run(read_generator_run, output, config, said, settings)
        run_generator(chosen, output)


@app.command("export-generator")
def export_generator(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="Folder of a run.")],
    into: Annotated[
        Path, typer.Option(help="The model folder whose factors it reads; a generator there is replaced.")
    ],
) -> None:
    """Put a run's generator, finished or not, into its model, for meduet and napari."""
    from meduet_training.runtime.messages import exit_with_message
    from meduet_training.tasks.generator.export import export_generator as export

    with exit_with_message():
        done, steps = export(run_folder, into)
        typer.echo(f"Wrote the generator after {done} of {steps} steps into {into}.")


@app.command()
def control(
    output: RunFolder,
    config: Annotated[
        Path | None, typer.Option(help="A YAML file (docs/how-to/train-a-generator.md).")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="A model folder that has a generator.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="A manifest, or a folder with an index.json; scans with labels count.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Where factors and masks are kept.")] = None,
    steps: Steps = None,
    batch: Batch = None,
    device: RunDevice = None,
    settings: Settings = None,
) -> None:
    """Train a ControlNet, so that a model's generator follows masks, or go on with the run in the folder."""
    from meduet_training.runtime.messages import report_on_rank_zero, exit_with_message
    from meduet_training.tasks.config import requested_run
    from meduet_training.tasks.control.config import read_control_run
    from meduet_training.tasks.control.run import run_control

    said = {
        "data": {"model": model, "scans": data, "cache_dir": cache},
        "training": {"batch": batch, "objective": {"total_steps": steps}},
        "hardware": {"device": device},
    }
    with exit_with_message():
        with report_on_rank_zero():
            chosen = requested_run(read_control_run, output, config, said, settings)
        run_control(chosen, output)


@app.command("export-control")
def export_control(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="Folder of a run.")],
    into: Annotated[Path, typer.Option(help="The model folder it was trained for; one there is replaced.")],
) -> None:
    """Put a run's ControlNet, finished or not, into its model, for meduet and napari."""
    from meduet_training.runtime.messages import exit_with_message
    from meduet_training.tasks.control.export import export_control as export

    with exit_with_message():
        done, steps = export(run_folder, into)
        typer.echo(f"Wrote the ControlNet after {done} of {steps} steps into {into}.")


class TaskPreset(StrEnum):
    tiny = "tiny"
    paper = "paper"


class TaskStart(StrEnum):
    meduet = "meduet"
    scratch = "scratch"


class StyleColumn(StrEnum):
    auto = "auto"
    one_shot = "one-shot"
    tenth = "tenth"
    half = "half"
    all = "all"
    off = "off"


class ModalityOption(StrEnum):
    CT = "CT"
    MR = "MR"


@app.command()
def segmenter(
    output: RunFolder,
    config: Annotated[
        Path | None, typer.Option(help="A YAML file (docs/how-to/train-a-segmenter.md).")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="A model folder: gives latents, styles and the start.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="A manifest, or a folder with an index.json or an nnU-Net dataset.json."),
    ] = None,
    names: Annotated[
        Path | None, typer.Option(help="YAML or JSON that names the labels, where the data do not.")
    ] = None,
    modality: Annotated[
        ModalityOption | None, typer.Option(help="Learn from scans of this one alone.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Where encoded scans are kept.")] = None,
    preset: Annotated[
        TaskPreset | None, typer.Option(help="Head, batch and length of the run; tiny by default.")
    ] = None,
    start: Annotated[
        TaskStart | None, typer.Option(help="From the model's encoder, the default, or from scratch.")
    ] = None,
    styles: Annotated[
        StyleColumn | None,
        typer.Option(help="Column of Table 12; auto, the default, is that of the number of labelled scans."),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Validations without a better Dice after which it ends; 0: never.")
    ] = None,
    steps: Steps = None,
    batch: Batch = None,
    device: RunDevice = None,
    settings: Settings = None,
) -> None:
    """Train a segmenter on a model's latents from labelled scans, or go on with the run in the folder."""
    from meduet_training.runtime.messages import report_on_rank_zero, exit_with_message
    from meduet_training.tasks.config import requested_run
    from meduet_training.tasks.segmenter.config import read_segmenter_run
    from meduet_training.tasks.segmenter.run import run_segmenter

    said = {
        "preset": preset and preset.value,
        "start": start and start.value,
        "styles": styles and styles.value,
        "patience": patience,
        "data": {
            "model": model,
            "scans": data,
            "names": names,
            "modality": modality and modality.value,
            "cache_dir": cache,
        },
        "training": {"batch": batch, "objective": {"total_steps": steps}},
        "hardware": {"device": device},
    }
    with exit_with_message():
        with report_on_rank_zero():
            chosen = requested_run(read_segmenter_run, output, config, said, settings)
        run_segmenter(chosen, output)


@app.command("export-segmenter")
def export_segmenter(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="Folder of a run.")],
    into: Annotated[
        Path, typer.Option(help="The model folder whose latents it reads; a segmenter there is replaced.")
    ],
) -> None:
    """Put a run's best segmenter, of a finished run or not, into its model, for meduet and napari."""
    from meduet_training.runtime.messages import exit_with_message
    from meduet_training.tasks.segmenter.export import export_segmenter as export

    with exit_with_message():
        done = export(run_folder, into)
        judged = "" if done.dice is None else f", validation Dice {done.dice:.3f},"
        typer.echo(f"Wrote the segmenter after {done.step} of {done.total_steps} steps{judged} into {into}.")


@app.command()
def classifier(
    output: RunFolder,
    config: Annotated[Path | None, typer.Option(help="A YAML file (docs/how-to/classify.md).")] = None,
    model: Annotated[
        Path | None, typer.Option(help="A model folder: gives latents, styles and the start.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A manifest, or a folder with an index.json.")] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Column that holds the class of each scan; or domain, modality, sequence."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="These classes alone, with commas; all by default.")
    ] = None,
    modality: Annotated[
        ModalityOption | None, typer.Option(help="Learn from scans of this one alone.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Where encoded scans are kept.")] = None,
    preset: Annotated[
        TaskPreset | None, typer.Option(help="Batch and length of the run; tiny by default.")
    ] = None,
    start: Annotated[
        TaskStart | None, typer.Option(help="From the model's encoder, the default, or from scratch.")
    ] = None,
    styles: Annotated[
        StyleColumn | None,
        typer.Option(help="Column of Table 12; auto, the default, is that of the number of labelled scans."),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Validations without a lower loss after which it ends; 0: never.")
    ] = None,
    steps: Steps = None,
    batch: Batch = None,
    device: RunDevice = None,
    settings: Settings = None,
) -> None:
    """Train a classifier of scans on a model's latents, or go on with the run in the folder."""
    from meduet_training.runtime.messages import report_on_rank_zero, exit_with_message
    from meduet_training.tasks.classifier.config import read_classifier_run
    from meduet_training.tasks.classifier.run import run_classifier
    from meduet_training.tasks.config import requested_run

    said = {
        "preset": preset and preset.value,
        "start": start and start.value,
        "styles": styles and styles.value,
        "patience": patience,
        "data": {
            "model": model,
            "scans": data,
            "target": target,
            "classes": [name.strip() for name in classes.split(",")] if classes else None,
            "modality": modality and modality.value,
            "cache_dir": cache,
        },
        "training": {"batch": batch, "objective": {"total_steps": steps}},
        "hardware": {"device": device},
    }
    with exit_with_message():
        with report_on_rank_zero():
            chosen = requested_run(read_classifier_run, output, config, said, settings)
        run_classifier(chosen, output)


@app.command("export-classifier")
def export_classifier(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="Folder of a run.")],
    into: Annotated[
        Path, typer.Option(help="The model folder whose latents it reads; a classifier there is replaced.")
    ],
) -> None:
    """Put a run's best classifier, of a finished run or not, into its model, for meduet."""
    from meduet_training.runtime.messages import exit_with_message
    from meduet_training.tasks.classifier.export import export_classifier as export

    with exit_with_message():
        done = export(run_folder, into)
        judged = (
            "" if done.balanced_accuracy is None else f", balanced accuracy {done.balanced_accuracy:.3f},"
        )
        typer.echo(
            f"Wrote the classifier after {done.step} of {done.total_steps} steps{judged} into {into}. "
            f"It tells {', '.join(done.classes)}."
        )


class Task(StrEnum):
    segmentation = "segmentation"
    classification = "classification"


@app.command("label-budgets")
def label_budgets(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the study.")],
    task: Annotated[Task, typer.Option(help="What is learnt.")] = Task.segmentation,
    budgets: Annotated[
        str, typer.Option(help="With commas: one (a patient for each class), or percent of the patients.")
    ] = "one,10,50,100",
    arms: Annotated[
        str, typer.Option(help="Ways of learning, with commas; gains are over the first.")
    ] = "scratch,meduet,meduet+style",
    seeds: Annotated[int, typer.Option(min=1, help="So many draws of patients, weights and crops.")] = 5,
    unseen: Annotated[
        list[str] | None,
        typer.Option(metavar="DOMAIN", help="Test on this domain, learn from the others; may be repeated."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A YAML file as segmenter or classifier reads it, for all runs.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="A model folder: gives latents, styles and the start.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="A manifest, or a folder with an index.json or an nnU-Net dataset.json."),
    ] = None,
    names: Annotated[
        Path | None, typer.Option(help="Segmentation: YAML or JSON that names the labels.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Classification: the column that holds the class of each scan.")
    ] = None,
    modality: Annotated[
        ModalityOption | None, typer.Option(help="Learn from scans of this one alone.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Where encoded scans are kept.")] = None,
    preset: Annotated[
        TaskPreset | None, typer.Option(help="Batch and length of each run; tiny by default.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Length of each run.")] = None,
    batch: Batch = None,
    device: RunDevice = None,
    settings: Settings = None,
) -> None:
    """Learn from few and from many labels, from scratch and from MeDUET, with and without other styles."""
    from meduet_training.runtime.messages import is_rank_zero, report_on_rank_zero, exit_with_message
    from meduet_training.studies.label_efficiency.options import budget_task, chosen_arms
    from meduet_training.studies.label_efficiency.runner import run_budgets
    from meduet_training.studies.label_efficiency.subsets import budgets_in
    from meduet_training.studies.label_efficiency.tables import as_markdown

    said = {
        "preset": preset and preset.value,
        "data": {
            "model": model,
            "scans": data,
            "names": names,
            "target": target,
            "modality": modality and modality.value,
            "cache_dir": cache,
            "unseen": unseen or None,
        },
        "training": {"batch": batch, "objective": {"total_steps": steps}},
        "hardware": {"device": device},
    }
    with exit_with_message():
        with report_on_rank_zero():
            chosen, ways = budgets_in(budgets), chosen_arms(arms)
            asked = budget_task(task.value, output, config, said, settings)
        study = run_budgets(asked, chosen, ways, seeds, output)
        if is_rank_zero():
            typer.echo(as_markdown(study), nl=False)


@app.command()
def figures(
    model: Annotated[Path, typer.Option(help="The model folder; its card is rewritten.")] = EMBEDDED,
    data: Data = SHARED_DATA,
    only: Annotated[str | None, typer.Option(help="Some of the figures, by name, with commas.")] = None,
    document: Annotated[
        Path | None, typer.Option(help="A page with markers for the tables, such as docs/benchmarks.md.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Measure a model on patients it never saw, and write the figures into its card."""
    from meduet_training.evaluation.card.metrics import SECTIONS, measure_model
    from meduet_training.runtime.messages import exit_with_message

    names = [name.strip() for name in only.split(",")] if only else list(SECTIONS)
    with exit_with_message():
        measure_model(model, data, names, device, document, typer.echo)
