"""`meduet-pretrain launch`: from this desktop, a pretraining on a server, and its model back.

`launch --host HOST CONFIG.yaml` is short for `launch start --host HOST CONFIG.yaml`.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from meduet_training.jobs.submitting import Executor
from meduet_training.runtime.messages import exit_with_message

if TYPE_CHECKING:
    from meduet_training.remote.launched import Launched

PROGRAM = "meduet-pretrain"
FAILED = 1


class _StartByDefault(TyperGroup):
    """A group that means its first command where none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["start", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_StartByDefault,
    no_args_is_help=True,
    help="Start a pretraining on a server, follow it, and fetch its model for the plugin.",
)

HostOption = Annotated[
    str | None, typer.Option(help="The server, as ssh takes it; needed for jobs not launched from here.")
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Name of the job, as it was printed.")]
ProgramOption = Annotated[
    str, typer.Option(help="The command on the server: its path there, where a login does not find it.")
]
JobsOption = Annotated[str | None, typer.Option(help="Folder of all jobs on the server.")]
ModelsOption = Annotated[
    Path | None, typer.Option(help="Folder for the model; where the plugin looks for models by default.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command()
def start(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Its paths are those of the server.")],
    host: Annotated[str, typer.Option(help="The server, as ssh takes it; ~/.ssh/config is read.")],
    executor: Annotated[Executor, typer.Option(help="auto takes SLURM where it is.")] = Executor.auto,
    gpus: Annotated[int, typer.Option(help="On each node; 0 trains on the processors.")] = 1,
    nodes: Annotated[int, typer.Option(help="SLURM only.")] = 1,
    hours: Annotated[float | None, typer.Option(help="Time limit of an attempt, SLURM only.")] = None,
    partition: Annotated[str | None, typer.Option(help="SLURM only.")] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Any other option of sbatch; may be repeated."),
    ] = None,
    program: ProgramOption = PROGRAM,
    jobs: JobsOption = None,
    models: ModelsOption = None,
    detach: Annotated[bool, typer.Option("--detach", help="Start it, print its name, and leave.")] = False,
) -> None:
    """Start a pretraining on a server, follow its log, and fetch its model when it is done."""
    from meduet_training.remote.host import RemoteHost
    from meduet_training.remote.launched import Launched, remember
    from meduet_training.remote.server import Server

    options = [f"--executor={executor}", f"--gpus={gpus}", f"--nodes={nodes}"]
    options += [f"--hours={hours}"] if hours is not None else []
    options += [f"--partition={partition}"] if partition is not None else []
    options += [f"--sbatch={pair}" for pair in sbatch or []]

    async def submit() -> Launched:
        async with RemoteHost.connect(host) as connected:
            found = await Server(connected, program, jobs).submit(config, config.stem, options)
        return Launched(job=found["job"], host=host, program=program, jobs=jobs)

    with exit_with_message():
        launched = asyncio.run(submit())
        remember(launched)
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
    """Print the log of a job from its beginning, go on until it is over, and fetch its model."""
    with exit_with_message():
        _follow_and_fetch(_found(job, host, program, jobs), models)


@app.command("status")
def show_status(
    job: JobArgument,
    host: HostOption = None,
    program: ProgramOption = PROGRAM,
    jobs: JobsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the state of a job, its last metrics, and why it ended if it did."""
    with exit_with_message():
        _print(asyncio.run(_ask("status", _found(job, host, program, jobs))), as_json)


@app.command("cancel")
def cancel_job(
    job: JobArgument,
    host: HostOption = None,
    program: ProgramOption = PROGRAM,
    jobs: JobsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a job to save a checkpoint and to end."""
    with exit_with_message():
        _print(asyncio.run(_ask("cancel", _found(job, host, program, jobs))), as_json)


@app.command("fetch")
def fetch_model(
    job: JobArgument,
    host: HostOption = None,
    program: ProgramOption = PROGRAM,
    jobs: JobsOption = None,
    models: ModelsOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model of that name.")] = False,
) -> None:
    """Fetch the model of a job's last checkpoint, finished or not, into the plugin's folder of models."""
    with exit_with_message():
        _fetch(_found(job, host, program, jobs), models, overwrite)


@app.command("list")
def list_launched() -> None:
    """List the jobs that were launched from this machine, the newest first."""
    from meduet_training.remote.launched import all_launched

    with exit_with_message():
        for launched in all_launched():
            typer.echo(f"{launched.job} on {launched.host}")


@app.command()
def check(
    host: Annotated[str, typer.Option(help="The server, as ssh takes it; ~/.ssh/config is read.")],
    program: ProgramOption = PROGRAM,
    jobs: JobsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test the connection, and print what the server has to train with."""
    import json

    from meduet_training.remote.host import RemoteHost
    from meduet_training.remote.server import Server

    async def ask() -> dict[str, Any]:
        async with RemoteHost.connect(host) as connected:
            return await Server(connected, program, jobs).machine()

    with exit_with_message():
        found = asyncio.run(ask())
        if as_json:
            typer.echo(json.dumps(found))
            return
        for key, value in found.items():
            typer.echo(f"{key}: {value}")


def _found(job: str, host: str | None, program: str, jobs: str | None) -> "Launched":
    """Where the job is: as it was launched from here, or as the options say."""
    from meduet_training.remote.launched import Launched, recall

    return Launched(job=job, host=host, program=program, jobs=jobs) if host else recall(job)


async def _ask(verb: str, launched: "Launched") -> dict[str, Any]:
    from meduet_training.remote.host import RemoteHost
    from meduet_training.remote.server import Server

    async with RemoteHost.connect(launched.host) as host:
        server = Server(host, launched.program, launched.jobs)
        return await (server.cancel if verb == "cancel" else server.status)(launched.job)


def _print(status: dict[str, Any], as_json: bool) -> None:
    import json

    if as_json:
        typer.echo(json.dumps(status))
        return
    step = (status["metrics"] or {}).get("step")
    typer.echo(f"{status['job']}: {status['state']}" + (f", after step {step}" if step is not None else ""))
    if status["reason"]:
        typer.echo(f"  {status['reason']}")


def _follow_and_fetch(launched: "Launched", models: Path | None) -> None:
    from meduet_training.remote.following import follow

    async def listen(events: AsyncIterator[dict[str, Any]]) -> dict[str, Any]:
        status: dict[str, Any] = {}
        async for event in events:
            if "log" in event:
                typer.echo(event["log"])
            elif "lost" in event:
                typer.echo(event["lost"], err=True)
            status = event.get("status", status)
        return status

    try:
        status = asyncio.run(listen(follow(launched)))
    except KeyboardInterrupt:
        typer.echo(
            f"{launched.job} goes on there; `{PROGRAM} launch follow {launched.job}` listens again.",
            err=True,
        )
        sys.exit(0)
    _print(status, as_json=False)
    if status["state"] != "finished":
        raise typer.Exit(FAILED)
    _fetch(launched, models, overwrite=True)


def _fetch(launched: "Launched", models: Path | None, overwrite: bool) -> None:
    from meduet_training.remote.fetching import fetch
    from napari_meduet.models.folders import models_folder

    folder = asyncio.run(fetch(launched, models or models_folder(), overwrite=overwrite))
    typer.echo(f"The model is in {folder}.")
