"""`meduet-pretrain`: from latents to a model that the plugin loads, on one GPU or on many nodes.

The folder of a run holds its configuration, checkpoints, log, panels and report, and the tokenizer that wrote
its latents. The same command resumes the run from the newest checkpoint. Torch is imported inside the
commands, so that `--help` opens at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from meduet_training.commands.jobs import app as jobs_app
from meduet_training.commands.launch import app as launch_app
from meduet_training.commands.options import (
    BatchOption,
    ConfigOption,
    RunDeviceOption,
    RunFolderArgument,
    RunFolderOption,
    SettingsOption,
    StepsOption,
)
from meduet_training.tasks.choices import ObjectiveVersion, Pretext, PretrainingPreset
from napari_meduet.core.options import Ablation, CtProfileName

if TYPE_CHECKING:
    from meduet_training.tasks.pretraining.config import PretrainingRun

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Pretrain a network on latents, and export it as a model, on one GPU or on many nodes.",
)
app.add_typer(jobs_app, name="jobs")
app.add_typer(launch_app, name="launch")

DESCRIPTION = (
    "A research model after {step} of {steps} steps of pretraining on {num_domains} domains. "
    "It is no medical device and must not be used for diagnosis."
)

TokenizerOption = Annotated[
    Path | None,
    typer.Option(help="Tokenizer that wrote the latents: a folder of meduet-train tokenizer, or a model."),
]
CacheOption = Annotated[Path | None, typer.Option(help="Folder of latents that meduet-cache wrote.")]
WindowsOption = Annotated[Path | None, typer.Option(help="File of latent windows.")]
ScansOption = Annotated[
    Path | None,
    typer.Option(help="Scans to make latent windows from: a manifest, or a folder with an index.json."),
]
CtProfileOption = Annotated[
    CtProfileName | None,
    typer.Option(
        help="Intensity profile for CT, for latents made from --data. Default: that of the tokenizer. A "
        "cache and windows already have a profile."
    ),
]
PresetOption = Annotated[
    PretrainingPreset | None, typer.Option(help="Network, batch and length of the run. Default: tiny.")
]
ObjectiveOption = Annotated[
    ObjectiveVersion | None,
    typer.Option(help="Objective of the paper's text, or with our corrections. Default: corrected."),
]
PretextOption = Annotated[
    Pretext | None,
    typer.Option(help="Pretext task. mdae-voxel reads scans and needs --data alone. Default: meduet."),
]
WithoutOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="|".join(get_args(Ablation)),
        help="Leave out a term of the objective, as in Tables 5 and 6. May be repeated.",
    ),
]


@app.command()
def run(
    output: RunFolderOption,
    config: ConfigOption = None,
    tokenizer: TokenizerOption = None,
    cache: CacheOption = None,
    windows: WindowsOption = None,
    data: ScansOption = None,
    ct_profile: CtProfileOption = None,
    preset: PresetOption = None,
    objective: ObjectiveOption = None,
    pretext: PretextOption = None,
    steps: StepsOption = None,
    batch: BatchOption = None,
    without: WithoutOption = None,
    device: RunDeviceOption = None,
    settings: SettingsOption = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what the run needs, and do not start it.")
    ] = False,
) -> None:
    """Pretrain a network, or resume the run in the folder.

    docs/how-to/pretrain.md describes the configuration.
    """
    from meduet_training.runtime.messages import exit_with_message, report_on_rank_zero
    from meduet_training.tasks.pretraining.run import run_pretraining
    from meduet_training.tasks.pretraining.task import PRETRAINING

    options = _options(preset, objective, pretext, steps, batch, without, device)
    options["data"] = {
        "tokenizer": tokenizer,
        "cache": cache,
        "windows": windows,
        "scans": data,
        "ct_profile": ct_profile,
    }
    with exit_with_message():
        with report_on_rank_zero():
            chosen = PRETRAINING.requested(output, config, options, settings)
        if plan:
            _print_plan(chosen, output, num_processes=1)
        else:
            run_pretraining(chosen, output)


@app.command()
def plan(
    output: RunFolderOption = Path("."),
    config: ConfigOption = None,
    preset: PresetOption = None,
    objective: ObjectiveOption = None,
    pretext: PretextOption = None,
    steps: StepsOption = None,
    batch: BatchOption = None,
    without: WithoutOption = None,
    device: RunDeviceOption = None,
    settings: SettingsOption = None,
    processes: Annotated[int, typer.Option(min=1, help="Number of processes that share each batch.")] = 1,
) -> None:
    """Print what a run needs before it starts: parameters, memory, time and disk space."""
    from meduet_training.runtime.messages import exit_with_message
    from meduet_training.tasks.config import drop_none, merged, parse_settings
    from meduet_training.tasks.pretraining.task import PRETRAINING

    options = _options(preset, objective, pretext, steps, batch, without, device)
    with exit_with_message():
        request = merged(drop_none(options), parse_settings(settings or []))
        _print_plan(PRETRAINING.read(config, request), output, processes)


@app.command()
def export(
    run_folder: RunFolderArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Model folder. Its name becomes the name of the model.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Scans of the training. With them the model knows the styles of their domains."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model that the folder already holds.")
    ] = False,
) -> None:
    """Write the network of a run, finished or not, as a model folder that meduet and napari load."""
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


def _options(
    preset: PretrainingPreset | None,
    objective: ObjectiveVersion | None,
    pretext: Pretext | None,
    steps: int | None,
    batch: int | None,
    without: list[str] | None,
    device: str | None,
) -> dict[str, Any]:
    """Return the options that `run` and `plan` share, nested like a configuration file."""
    return {
        "preset": preset,
        "objective": objective,
        "pretext": pretext,
        "training": {"batch": batch, "objective": {"total_steps": steps, "without": without or None}},
        "hardware": {"device": device},
    }


def _print_plan(config: "PretrainingRun", folder: Path, num_processes: int) -> None:
    from meduet_training.engine.planning import plan_run, plan_table
    from meduet_training.runtime.messages import page, print_to_stderr

    print_to_stderr("Counting operations, then timing a few steps. A large network takes minutes on a CPU.")
    found = plan_run(
        config.training,
        config.hardware,
        config.trainer,
        folder,
        num_processes=num_processes,
        cache=config.data and (config.data.cache or config.data.windows),
    )
    page().print(plan_table(found))
    for warning in found.warnings:
        print_to_stderr(warning)


if __name__ == "__main__":
    app()
