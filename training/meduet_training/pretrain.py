"""`meduet-pretrain`: pretraining on one machine, from cached latent windows to a model that the plugin loads.

A run lives in a folder: its checkpoint, the losses of its steps (`log.jsonl`) and the tokenizer whose latents
it learns from. The same command again goes on where the checkpoint ends. Torch is imported inside the
commands, so that `--help` opens at once.
"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from meduet_training.pretraining import Pretraining
    from napari_meduet.core.objective import Ablation

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Pretraining on one machine, from latent windows to a model that the plugin loads.",
)

DESCRIPTION = (
    "A research model after {step} of {steps} steps of pretraining on {num_domains} domains. "
    "It is no medical device and must not be used for diagnosis."
)


class Preset(StrEnum):
    tiny = "tiny"
    small = "small"
    base = "base"


class Text(StrEnum):
    corrected = "corrected"
    paper = "paper"


class Term(StrEnum):
    domain = "domain"
    mftd = "mftd"
    siqc = "siqc"
    disentangle = "disentangle"
    demix = "demix"


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@app.command()
def run(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    tokenizer: Annotated[
        Path, typer.Option(help="Folder of meduet-train tokenizer, or a model: what writes the latents.")
    ],
    windows: Annotated[Path | None, typer.Option(help="Latent windows made before.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of scans with an index.json, to make the windows from.")
    ] = None,
    cache: Annotated[Path, typer.Option(help="Where windows made from --data are kept.")] = Path(
        "caches/pretrain"
    ),
    preset: Annotated[Preset, typer.Option(help="Size of network, batch and run.")] = Preset.tiny,
    objective: Annotated[
        Text, typer.Option(help="The paper's text, or with our corrections.")
    ] = Text.corrected,
    steps: Annotated[int | None, typer.Option(help="Length of the run.")] = None,
    batch: Annotated[int | None, typer.Option(help="Windows a step; an even number.")] = None,
    without: Annotated[
        list[Term] | None, typer.Option(help="Leave a term out, as Tables 5 and 6 do; may be repeated.")
    ] = None,
    device: Annotated[Device, typer.Option(help="auto takes a GPU where there is one.")] = Device.auto,
) -> None:
    """Pretrain, or go on with the run in the folder."""
    from meduet_training.data.window_source import WindowSource
    from meduet_training.guarding import guarded
    from meduet_training.machinery.fabric import Hardware, make_fabric
    from meduet_training.machinery.messages import plain_errors
    from meduet_training.machinery.progress import training_progress
    from meduet_training.machinery.watching import LossesOnly
    from meduet_training.pretraining import for_source, run_pretraining
    from meduet_training.run_folder import keep_tokenizer, open_windows
    from meduet_training.tokenizer_files import load_tokenizer

    with plain_errors():
        training = _chosen(preset, objective, steps, batch, without or [])
        writer = load_tokenizer(tokenizer)
        fabric = make_fabric(device)
        found = open_windows(windows, data, cache, writer, training.seed, fabric.device)
        source = WindowSource(found, training.seed)
        training = for_source(training, source)
        total = training.objective.total_steps
        with guarded(fabric, output, Hardware.timeout_s) as guard:
            keep_tokenizer(writer, output)
            with training_progress("Pretraining", total, output) as on_step:
                run_pretraining(
                    fabric,
                    source,
                    training,
                    output,
                    watch=LossesOnly(on_step),
                    is_stopped=guard.is_stopped,
                    at=guard.supervisor.at,
                )


@app.command()
def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="Folder of a run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the model; its name is its own.")],
    data: Annotated[
        Path | None,
        typer.Option(help="The scans it learned from: the model then knows the styles of their domains."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that is there.")] = False,
) -> None:
    """Write a run's network, finished or not, as a model folder that meduet and napari load."""
    from meduet_training.data.cohort import read_cohort, trainable
    from meduet_training.machinery.messages import plain_errors
    from meduet_training.model_folder import write_model
    from meduet_training.resuming import load_trained
    from meduet_training.tokenizer_files import load_tokenizer

    with plain_errors():
        trained = load_trained(run_folder)
        settings, steps = trained.settings, trained.settings.training["objective"]["total_steps"]
        write_model(
            output,
            name=output.resolve().name,
            description=DESCRIPTION.format(step=trained.step, steps=steps, num_domains=len(settings.domains)),
            tokenizer=load_tokenizer(run_folder),
            trained=trained,
            scans=trainable(read_cohort(data)) if data else [],
            training={"pretraining": settings.training, "steps_taken": trained.step},
            seeds={"pretraining": settings.training["seed"]},
            overwrite=overwrite,
        )
        typer.echo(f"Wrote {output}: the network after {trained.step} of {steps} steps.")


def _chosen(
    preset: Preset, objective: Text, steps: int | None, batch: int | None, without: list[Term]
) -> "Pretraining":
    """The preset with what differs.

    Raises:
        InputError: it cannot be trained like that.
    """
    from dataclasses import replace

    from meduet_training.recipes import pretraining as recipes
    from napari_meduet.errors import InputError

    training = recipes.PRESETS[preset]()
    try:
        if objective is Text.paper:
            training = recipes.in_the_papers_words(training)
        if steps is not None:
            training = recipes.shortened(training, steps)
        if batch is not None:
            training = replace(training, batch=batch)
        return recipes.without(training, [cast("Ablation", term.value) for term in without])
    except ValueError as error:
        raise InputError(str(error)) from error
