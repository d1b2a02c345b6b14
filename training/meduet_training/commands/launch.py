"""`meduet-pretrain launch`: start a pretraining on a server from this desktop, and fetch its model.

`launch --host HOST CONFIG.yaml` is short for `launch start --host HOST CONFIG.yaml`. The server runs the
commands of jobs.py.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from meduet_training.commands.jobs import print_machine
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
from meduet_training.jobs.choices import PROGRAM
from meduet_training.runtime.messages import exit_with_message

if TYPE_CHECKING:
    from meduet_training.remote.history import LaunchedJob

EXIT_NOT_FINISHED = 1


class _StartByDefault(TyperGroup):
    """A group of commands that runs `start` if no command is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["start", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_StartByDefault,
    no_args_is_help=True,
    help="Start a pretraining on a server, follow it, and fetch its model for the plugin.",
)

ServerOption = Annotated[
    str,
    typer.Option("--host", help="Name of the server, as for ssh. The settings in ~/.ssh/config are used."),
]
HostOption = Annotated[
    str | None,
    typer.Option(
        "--host", help="Name of the server, as for ssh. Needed for jobs launched from another machine."
    ),
]
ProgramOption = Annotated[
    str,
    typer.Option(
        "--program", help="Command on the server. Give its path if a login does not find the command."
    ),
]
JobsOption = Annotated[
    str | None, typer.Option("--jobs", help="Folder of all jobs on the server. Default: ~/meduet-jobs there.")
]
ModelsOption = Annotated[
    Path | None, typer.Option("--models", help="Folder for the model. Default: the plugin's model folder.")
]


@app.command()
def start(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG.yaml", help="Configuration file. Its paths are paths on the server."),
    ],
    host: ServerOption,
    executor: ExecutorOption = "auto",
    gpus: GpusOption = 1,
    nodes: NodesOption = 1,
    hours: HoursOption = None,
    partition: PartitionOption = None,
    sbatch: SbatchOption = None,
    program: ProgramOption = PROGRAM,
    jobs: JobsOption = None,
    models: ModelsOption = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Start the job, print its name, and do not follow it.")
    ] = False,
) -> None:
    """Start a pretraining on a server, follow its log, and fetch its model at the end."""
    from meduet_training.remote.history import LaunchedJob, save_launched_job
    from meduet_training.remote.host import RemoteHost
    from meduet_training.remote.server import Server

    options = [f"--executor={executor}", f"--gpus={gpus}", f"--nodes={nodes}"]
    options += [f"--hours={hours}"] if hours is not None else []
    options += [f"--partition={partition}"] if partition is not None else []
    options += [f"--sbatch={pair}" for pair in sbatch or []]

    async def submit() -> LaunchedJob:
        async with RemoteHost.connect(host) as connected:
            found = await Server(connected, program, jobs).submit(config, config.stem, options)
        return LaunchedJob(job=found["job"], host=host, program=program, jobs=jobs)

    with exit_with_message():
        launched = asyncio.run(submit())
        save_launched_job(launched)
        typer.echo(f"{launched.job} on {host}")
        if not detach:
            _follow_and_fetch(launched, models)


@app.command("follow")
def follow_job(
    job: JobArgument,
    host: HostOption = None,
    program: ProgramOption = PROGRAM,
    jobs: JobsOption = None,
    models: ModelsOption = None,
) -> None:
    """Print the log of a job from its beginning until the job is over, and fetch its model."""
    with exit_with_message():
        _follow_and_fetch(_find_job(job, host, program, jobs), models)


@app.command("status")
def show_status(
    job: JobArgument,
    host: HostOption = None,
    program: ProgramOption = PROGRAM,
    jobs: JobsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the state of a job, its last metrics, and why it ended."""
    with exit_with_message():
        _print_status(asyncio.run(_call("status", _find_job(job, host, program, jobs))), as_json)


@app.command("cancel")
def cancel_job(
    job: JobArgument,
    host: HostOption = None,
    program: ProgramOption = PROGRAM,
    jobs: JobsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Signal a job to save a checkpoint and to end."""
    with exit_with_message():
        _print_status(asyncio.run(_call("cancel", _find_job(job, host, program, jobs))), as_json)


@app.command("fetch")
def fetch_model(
    job: JobArgument,
    host: HostOption = None,
    program: ProgramOption = PROGRAM,
    jobs: JobsOption = None,
    models: ModelsOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model with the same name.")
    ] = False,
) -> None:
    """Fetch the model of a job's newest checkpoint, finished or not, into the plugin's model folder."""
    with exit_with_message():
        _fetch(_find_job(job, host, program, jobs), models, overwrite)


@app.command("list")
def list_launched() -> None:
    """List the jobs that were launched from this machine, the newest first."""
    from meduet_training.remote.history import list_launched_jobs

    with exit_with_message():
        for launched in list_launched_jobs():
            typer.echo(f"{launched.job} on {launched.host}")


@app.command()
def check(
    host: ServerOption,
    program: ProgramOption = PROGRAM,
    jobs: JobsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test the connection to a server, and print its hardware and software."""
    from meduet_training.remote.host import RemoteHost
    from meduet_training.remote.server import Server

    async def machine() -> dict[str, Any]:
        async with RemoteHost.connect(host) as connected:
            return await Server(connected, program, jobs).machine()

    with exit_with_message():
        print_machine(asyncio.run(machine()), as_json)


def _find_job(job: str, host: str | None, program: str, jobs: str | None) -> "LaunchedJob":
    """Return the job that the options describe, or without --host that of the launch history."""
    from meduet_training.remote.history import LaunchedJob, find_launched_job

    return LaunchedJob(job=job, host=host, program=program, jobs=jobs) if host else find_launched_job(job)


async def _call(command: str, launched: "LaunchedJob") -> dict[str, Any]:
    from meduet_training.remote.host import RemoteHost
    from meduet_training.remote.server import Server

    async with RemoteHost.connect(launched.host) as host:
        server = Server(host, launched.program, launched.jobs)
        return await (server.cancel if command == "cancel" else server.status)(launched.job)


def _print_status(status: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(status))
        return
    step = (status["metrics"] or {}).get("step")
    typer.echo(f"{status['job']}: {status['state']}" + (f", after step {step}" if step is not None else ""))
    if status["reason"]:
        typer.echo(f"  {status['reason']}")


def _follow_and_fetch(launched: "LaunchedJob", models: Path | None) -> None:
    """Print the events of a job until it is over, and fetch its model if it finished."""
    from meduet_training.remote.events import follow_job

    async def print_events(events: AsyncIterator[dict[str, Any]]) -> dict[str, Any]:
        status: dict[str, Any] = {}
        async for event in events:
            if "log" in event:
                typer.echo(event["log"])
            elif "lost" in event:
                typer.echo(event["lost"], err=True)
            status = event.get("status", status)
        return status

    try:
        status = asyncio.run(print_events(follow_job(launched)))
    except KeyboardInterrupt:
        typer.echo(
            f"{launched.job} continues on the server. To follow it again: "
            f"`{PROGRAM} launch follow {launched.job}`.",
            err=True,
        )
        sys.exit(0)
    _print_status(status, as_json=False)
    if status["state"] != "finished":
        raise typer.Exit(EXIT_NOT_FINISHED)
    _fetch(launched, models, overwrite=True)


def _fetch(launched: "LaunchedJob", models: Path | None, overwrite: bool) -> None:
    from meduet_training.remote.download import download_model
    from napari_meduet.models.folders import models_folder

    folder = asyncio.run(download_model(launched, models or models_folder(), overwrite=overwrite))
    typer.echo(f"The model is in {folder}.")
