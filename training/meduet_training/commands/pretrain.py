"""`meduet-pretrain`: from latents to a model that the plugin loads, on one GPU or on many nodes.

A run lives in a folder: its configuration, checkpoints, log, panels, report, and the tokenizer whose latents
it learns from. The same command again goes on where the newest checkpoint ends. Torch is imported inside the
commands, so that `--help` opens at once.
"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meduet_training.commands.jobs import app as jobs_app
from napari_meduet.core.options import CtProfileName

if TYPE_CHECKING:
    from meduet_training.tasks.config import RunConfig
from meduet_training.commands.launch import app as launch_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Pretraining, from latents to a model that the plugin loads, on one GPU or on many nodes.",
)
app.add_typer(jobs_app, name="jobs")
app.add_typer(launch_app, name="launch")

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


class Pretext(StrEnum):
    meduet = "meduet"
    mae = "mae"
    mdae = "mdae"
    mdae_voxel = "mdae-voxel"


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


Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")]
Config = Annotated[
    Path | None, typer.Option(help="A YAML file (docs/how-to/pretrain.md); other options go over it.")
]
Tokenizer = Annotated[
    Path | None, typer.Option(help="Folder of meduet-train tokenizer, or a model: what wrote the latents.")
]
Cache = Annotated[Path | None, typer.Option(help="Latents of meduet-cache.")]
Windows = Annotated[Path | None, typer.Option(help="Latent windows made before.")]
Data = Annotated[
    Path | None, typer.Option(help="Scans: a manifest or a folder with an index.json, to make windows from.")
]
CtProfile = Annotated[
    CtProfileName | None,
    typer.Option(
        help="Intensity profile for CT, for latents made from --data. Default: the tokenizer's own. A cache or "
        "windows already have a profile."
    ),
]
PresetOption = Annotated[Preset | None, typer.Option(help="Size of network, batch and run; tiny by default.")]
TextOption = Annotated[
    Text | None, typer.Option("--objective", help="The paper's text, or with our corrections, the default.")
]
PretextOption = Annotated[
    Pretext | None, typer.Option(help="meduet by default; mdae-voxel needs --data alone.")
]
Steps = Annotated[int | None, typer.Option(help="Length of the run.")]
Batch = Annotated[int | None, typer.Option(help="Volumes a step, over all processes.")]
Without = Annotated[
    list[Term] | None, typer.Option(help="Leave a term out, as Tables 5 and 6 do; may be repeated.")
]
DeviceOption = Annotated[Device | None, typer.Option(help="auto takes a GPU where there is one.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any other, as training.clip=0.5; may be repeated."),
]


@app.command()
def run(
    output: Output,
    config: Config = None,
    tokenizer: Tokenizer = None,
    cache: Cache = None,
    windows: Windows = None,
    data: Data = None,
    ct_profile: CtProfile = None,
    preset: PresetOption = None,
    objective: TextOption = None,
    pretext: PretextOption = None,
    steps: Steps = None,
    batch: Batch = None,
    without: Without = None,
    device: DeviceOption = None,
    settings: Settings = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what the run will need, and do not begin it.")
    ] = False,
) -> None:
    """Pretrain, or go on with the run in the folder."""
    from meduet_training.runtime.messages import report_on_rank_zero, exit_with_message
    from meduet_training.tasks.config import CONFIG, changes_of, merged, read_run_config
    from meduet_training.tasks.pretraining.run import run_from_config

    changes = _changes(preset, objective, pretext, steps, batch, without, device)
    changes["data"] = {
        "tokenizer": tokenizer,
        "cache": cache,
        "windows": windows,
        "scans": data,
        "ct_profile": ct_profile,
    }
    with exit_with_message():
        with report_on_rank_zero():
            said = merged(_said(changes), changes_of(settings or []))
            if not config and "data" not in said and (output / CONFIG).is_file():
                config = output / CONFIG
            chosen = read_run_config(config, said)
        if plan:
            _show_plan(chosen, output, processes=1)
        else:
            run_from_config(chosen, output)


@app.command()
def plan(
    output: Output = Path("."),
    config: Config = None,
    preset: PresetOption = None,
    objective: TextOption = None,
    pretext: PretextOption = None,
    steps: Steps = None,
    batch: Batch = None,
    without: Without = None,
    device: DeviceOption = None,
    settings: Settings = None,
    processes: Annotated[int, typer.Option(min=1, help="That will share each batch.")] = 1,
) -> None:
    """Print what a run will need, before it begins: parameters, memory, time, disk."""
    from meduet_training.runtime.messages import exit_with_message
    from meduet_training.tasks.config import changes_of, merged, read_run_config

    changes = _changes(preset, objective, pretext, steps, batch, without, device)
    with exit_with_message():
        said = merged(_said(changes), changes_of(settings or []))
        _show_plan(read_run_config(config, said), output, processes)


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
    from meduet_training.data.cohort.scans import read_cohort, trainable
    from meduet_training.data.tokenizer_files import load_tokenizer
    from meduet_training.engine.resume import load_trained
    from meduet_training.runtime.messages import exit_with_message
    from meduet_training.tasks.pretraining.export import write_model

    with exit_with_message():
        trained = load_trained(run_folder)
        tokenizer, spec = load_tokenizer(run_folder)
        settings, steps = trained.settings, trained.settings.training["objective"]["total_steps"]
        write_model(
            output,
            name=output.resolve().name,
            description=DESCRIPTION.format(step=trained.step, steps=steps, num_domains=len(settings.domains)),
            tokenizer=tokenizer,
            spec=spec,
            trained=trained,
            scans=trainable(read_cohort(data)) if data else [],
            training={"pretraining": settings.training, "steps_taken": trained.step},
            seeds={"pretraining": settings.training["seed"]},
            overwrite=overwrite,
        )
        typer.echo(f"Wrote {output}: the network after {trained.step} of {steps} steps.")


def _changes(
    preset: Preset | None,
    objective: Text | None,
    pretext: Pretext | None,
    steps: int | None,
    batch: int | None,
    without: list[Term] | None,
    device: Device | None,
) -> dict[str, Any]:
    """The options that `run` and `plan` share, where they stand in a configuration."""
    return {
        "preset": preset,
        "objective": objective,
        "pretext": pretext,
        "training": {"batch": batch, "objective": {"total_steps": steps, "without": without}},
        "hardware": {"device": device},
    }


def _show_plan(config: "RunConfig", folder: Path, processes: int) -> None:
    from meduet_training.engine.planning import plan_run, plan_table
    from meduet_training.runtime.messages import page, print_to_stderr

    print_to_stderr("Counting, then measuring a few steps here; a large network takes minutes without a GPU.")
    found = plan_run(
        config.training,
        config.hardware,
        config.upkeep,
        folder,
        num_processes=processes,
        cache=config.data and (config.data.cache or config.data.windows),
    )
    page().print(plan_table(found))
    for warning in found.warnings:
        print_to_stderr(warning)


def _said(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as plain data."""
    from meduet_training.tasks.config import without_unsaid

    return _plain(without_unsaid(options))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.value if isinstance(value, StrEnum) else value


if __name__ == "__main__":
    app()
