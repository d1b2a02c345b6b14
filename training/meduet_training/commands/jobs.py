"""`meduet-pretrain jobs`: pretrainings as jobs of this server. A desktop calls these commands with `--json`.

launch.py holds the commands of the desktop.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meduet_training.commands.options import (
    ExecutorOption,
    GpusOption,
    HoursOption,
    JobArgument,
    JsonOption,
    NodesOption,
    PartitionOption,
    SbatchOption,
)
from meduet_training.jobs.choices import JOBS_FOLDER
from meduet_training.runtime.messages import exit_with_message

if TYPE_CHECKING:
    from meduet_training.jobs.state import Status

app = typer.Typer(
    no_args_is_help=True,
    help="Run pretrainings as jobs of this server, on SLURM or on this machine.",
)

JobsOption = Annotated[
    Path,
    typer.Option("--jobs", envvar="MEDUET_JOBS", help="Folder of all jobs. All nodes need access to it."),
]


@app.command()
def submit(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml", help="Configuration file of a pretraining.")
    ],
    executor: ExecutorOption = "auto",
    gpus: GpusOption = 1,
    nodes: NodesOption = 1,
    hours: HoursOption = None,
    partition: PartitionOption = None,
    sbatch: SbatchOption = None,
    name: Annotated[
        str | None,
        typer.Option(help="Beginning of the job's name. Default: the name of the configuration file."),
    ] = None,
    jobs: JobsOption = JOBS_FOLDER,
    as_json: JsonOption = False,
) -> None:
    """Submit a pretraining. It continues after the end of this login and after a preemption."""
    from meduet_training.jobs.state import status
    from meduet_training.jobs.store import Resources
    from meduet_training.jobs.submission import submit as submit_job

    with exit_with_message():
        resources = Resources(
            gpus=gpus, nodes=nodes, hours=hours, partition=partition, sbatch=_sbatch_options(sbatch)
        )
        job = submit_job(config.expanduser(), jobs.expanduser(), resources, executor, name)
        _print_status(status(job), as_json)


@app.command("status")
def show_status(job: JobArgument, jobs: JobsOption = JOBS_FOLDER, as_json: JsonOption = False) -> None:
    """Print the state of a job, its last metrics, and why it ended."""
    from meduet_training.jobs.state import status
    from meduet_training.jobs.store import read_job

    with exit_with_message():
        _print_status(status(read_job(jobs.expanduser(), job)), as_json)


@app.command()
def logs(
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the job is over.")] = False,
    offset: Annotated[int, typer.Option(min=0, help="Byte of the log file to start at.")] = 0,
    after_step: Annotated[int, typer.Option(help="Print only metrics of steps after this one.")] = -1,
    jobs: JobsOption = JOBS_FOLDER,
    as_json: JsonOption = False,
) -> None:
    """Print the log of a job. With --json, print its log, metrics and status, one event on each line."""
    from meduet_training.jobs.events import events
    from meduet_training.jobs.store import read_job

    with exit_with_message():
        found = read_job(jobs.expanduser(), job)
        for event in events(found, offset, after_step, wait=follow):
            if as_json:
                print(json.dumps(event), flush=True)
            elif "log" in event:
                print(event["log"], flush=True)


@app.command("list")
def list_all(jobs: JobsOption = JOBS_FOLDER, as_json: JsonOption = False) -> None:
    """List all jobs, the newest first."""
    from rich import print as show
    from rich.table import Table

    from meduet_training.jobs.state import statuses
    from meduet_training.jobs.store import list_jobs

    with exit_with_message():
        found = statuses(list_jobs(jobs.expanduser()))
        if as_json:
            typer.echo(json.dumps([row.model_dump(mode="json") for row in found]))
            return
        table = Table("job", "state", "executor", "step", "submitted")
        for row in found:
            step = (row.metrics or {}).get("step", "")
            table.add_row(
                row.job, row.state, f"{row.executor} {row.scheduler_id or ''}", str(step), row.submitted
            )
        show(table)


@app.command()
def cancel(job: JobArgument, jobs: JobsOption = JOBS_FOLDER, as_json: JsonOption = False) -> None:
    """Signal a job to save a checkpoint and to end."""
    from meduet_training.jobs.store import read_job
    from meduet_training.jobs.submission import cancel as cancel_job

    with exit_with_message():
        _print_status(cancel_job(read_job(jobs.expanduser(), job)), as_json)


@app.command()
def resume(job: JobArgument, jobs: JobsOption = JOBS_FOLDER, as_json: JsonOption = False) -> None:
    """Submit a job again that was cancelled, lost or failed. It continues from its newest checkpoint."""
    from meduet_training.jobs.state import status
    from meduet_training.jobs.store import read_job
    from meduet_training.jobs.submission import resume as resume_job

    with exit_with_message():
        folder = jobs.expanduser()
        _print_status(status(resume_job(folder, read_job(folder, job))), as_json)


@app.command("export")
def export_job(job: JobArgument, jobs: JobsOption = JOBS_FOLDER, as_json: JsonOption = False) -> None:
    """Write the network of a job's newest checkpoint as a model folder, and print its files and digests."""
    from meduet_training.jobs.export import export_model
    from meduet_training.jobs.store import read_job

    with exit_with_message():
        model = export_model(read_job(jobs.expanduser(), job))
        typer.echo(model.model_dump_json() if as_json else f"Wrote {model.folder}.")


@app.command()
def machine(jobs: JobsOption = JOBS_FOLDER, as_json: JsonOption = False) -> None:
    """Print the hardware and software of this machine: GPUs, memory, disk, versions, SLURM."""
    from meduet_training.jobs.hardware import describe_machine

    with exit_with_message():
        print_machine(describe_machine(jobs.expanduser()), as_json)


def print_machine(found: dict[str, Any], as_json: bool) -> None:
    """Print a description of a machine, as JSON or with one value on each line."""
    if as_json:
        typer.echo(json.dumps(found))
        return
    for key, value in found.items():
        typer.echo(f"{key}: {value}")


def _print_status(found: "Status", as_json: bool) -> None:
    if as_json:
        typer.echo(found.model_dump_json())
        return
    typer.echo(f"{found.job}: {found.state}" + (f", {found.reason}" if found.reason else ""))
    if found.metrics:
        typer.echo(f"  after step {found.metrics.get('step')}, in {found.folder}")


def _sbatch_options(texts: list[str] | None) -> dict[str, str]:
    """Return options of sbatch by their names.

    Raises:
        InputError: a text is not of the form NAME=VALUE.
    """
    from napari_meduet.errors import InputError

    options = {}
    for text in texts or []:
        name, found, value = text.partition("=")
        name = name.lstrip("-")
        if not found or not name.replace("-", "").isalpha():
            raise InputError(
                f"--sbatch {text}: give the long name of an option and its value, for example mem=64G."
            )
        options[name] = value
    return options
