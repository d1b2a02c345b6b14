"""`meduet-pretrain jobs`: pretrainings as jobs of this server. A desktop calls them with `--json`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from meduet_training.jobs.submitting import Executor
from meduet_training.runtime.messages import exit_with_message

app = typer.Typer(
    no_args_is_help=True,
    help="Pretrainings as jobs of this server: submit, watch, cancel, resume; on SLURM or on this machine.",
)

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Name of a job, as `jobs list` shows it.")]
JobsOption = Annotated[
    Path, typer.Option("--jobs", envvar="MEDUET_JOBS", help="Folder of all jobs; every node must see it.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
JOBS = Path("~/meduet-jobs")


@app.command()
def submit(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Configuration of a pretraining.")],
    executor: Annotated[Executor, typer.Option(help="auto takes SLURM where it is.")] = Executor.auto,
    gpus: Annotated[int, typer.Option(help="On each node; 0 trains on the processors.")] = 1,
    nodes: Annotated[int, typer.Option(help="SLURM only.")] = 1,
    hours: Annotated[
        float | None, typer.Option(help="Time limit of an attempt, SLURM only; the job goes on in the next.")
    ] = None,
    partition: Annotated[str | None, typer.Option(help="SLURM only.")] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Any other option of sbatch; may be repeated."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the job; that of the configuration by default.")
    ] = None,
    jobs: JobsOption = JOBS,
    as_json: JsonOption = False,
) -> None:
    """Submit a pretraining. It survives the end of this login, and goes on after a preemption."""
    from meduet_training.jobs.record import Resources
    from meduet_training.jobs.state import status
    from meduet_training.jobs.submitting import submit as submit_job

    with exit_with_message():
        wanted = Resources(gpus=gpus, nodes=nodes, hours=hours, partition=partition, sbatch=_pairs(sbatch))
        job = submit_job(config.expanduser(), jobs.expanduser(), wanted, executor, name)
        _show_status(status(job), as_json)


@app.command("status")
def show_status(job: JobArgument, jobs: JobsOption = JOBS, as_json: JsonOption = False) -> None:
    """Print the state of a job, its last metrics, and why it ended if it did."""
    from meduet_training.jobs.record import read_job
    from meduet_training.jobs.state import status

    with exit_with_message():
        _show_status(status(read_job(jobs.expanduser(), job)), as_json)


@app.command()
def logs(
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over.")] = False,
    offset: Annotated[int, typer.Option(min=0, help="Byte of the log to begin at.")] = 0,
    after_step: Annotated[int, typer.Option(help="Metrics of later steps alone.")] = -1,
    jobs: JobsOption = JOBS,
    as_json: JsonOption = False,
) -> None:
    """Print the log of a job; with --json, log and metrics as one event a line."""
    from meduet_training.jobs.following import events
    from meduet_training.jobs.record import read_job

    with exit_with_message():
        found = read_job(jobs.expanduser(), job)
        for event in events(found, offset, after_step, wait=follow):
            if as_json:
                print(json.dumps(event), flush=True)
            elif "log" in event:
                print(event["log"], flush=True)


@app.command("list")
def list_all(jobs: JobsOption = JOBS, as_json: JsonOption = False) -> None:
    """List all jobs, the newest first."""
    from rich import print as show
    from rich.table import Table

    from meduet_training.jobs.record import list_jobs
    from meduet_training.jobs.state import statuses

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
def cancel(job: JobArgument, jobs: JobsOption = JOBS, as_json: JsonOption = False) -> None:
    """Ask a job to save a checkpoint and to end."""
    from meduet_training.jobs.record import read_job
    from meduet_training.jobs.submitting import cancel as cancel_job

    with exit_with_message():
        _show_status(cancel_job(read_job(jobs.expanduser(), job)), as_json)


@app.command()
def resume(job: JobArgument, jobs: JobsOption = JOBS, as_json: JsonOption = False) -> None:
    """Submit a job again that was cancelled, lost or failed; it goes on from its last checkpoint."""
    from meduet_training.jobs.record import read_job
    from meduet_training.jobs.state import status
    from meduet_training.jobs.submitting import resume as resume_job

    with exit_with_message():
        folder = jobs.expanduser()
        _show_status(status(resume_job(folder, read_job(folder, job))), as_json)


@app.command("export")
def export_job(job: JobArgument, jobs: JobsOption = JOBS, as_json: JsonOption = False) -> None:
    """Write the network of a job's last checkpoint as a model folder, and print its files and digests."""
    from meduet_training.jobs.exporting import export_model
    from meduet_training.jobs.record import read_job

    with exit_with_message():
        model = export_model(read_job(jobs.expanduser(), job))
        typer.echo(json.dumps(model) if as_json else f"Wrote {model['folder']}.")


@app.command()
def machine(jobs: JobsOption = JOBS, as_json: JsonOption = False) -> None:
    """Print what this machine has to train with: GPUs, memory, disk, versions, SLURM."""
    from meduet_training.jobs.machine import describe_machine

    with exit_with_message():
        found = describe_machine(jobs.expanduser())
        if as_json:
            typer.echo(json.dumps(found))
            return
        for key, value in found.items():
            typer.echo(f"{key}: {value}")


def _show_status(found, as_json: bool) -> None:
    if as_json:
        typer.echo(found.model_dump_json())
        return
    typer.echo(f"{found.job}: {found.state}" + (f", {found.reason}" if found.reason else ""))
    if found.metrics:
        typer.echo(f"  after step {found.metrics.get('step')}, in {found.folder}")


def _pairs(given: list[str] | None) -> dict[str, str]:
    """The options of sbatch, as names and values.

    Raises:
        InputError: one is no such pair.
    """
    from napari_meduet.errors import InputError

    pairs = {}
    for text in given or []:
        name, found, value = text.partition("=")
        name = name.lstrip("-")
        if not found or not name.replace("-", "").isalpha():
            raise InputError(f"--sbatch {text}: give the long name of an option and its value, as mem=64G.")
        pairs[name] = value
    return pairs
