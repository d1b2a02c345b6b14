"""`meduet-cache`: every scan of a manifest encoded once, for pretrainings that visit them for days.

The same command again goes on where it stopped, in as many processes and on as many machines as wanted. Torch
is imported inside the command, so that `--help` opens at once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_meduet.core.options import CtProfileName

if TYPE_CHECKING:
    from meduet_training.data.caches.latent_encoding import Report

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

EXIT_SOME_FAILED = 65  # EX_DATAERR of sysexits.h


@app.command()
def cache(
    manifest: Annotated[
        Path,
        typer.Argument(help="What meduet-cohort wrote, or a folder of scans with an index.json."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the cache.")],
    tokenizer: Annotated[
        Path,
        typer.Option(
            help="What writes the latents: a folder of meduet-train tokenizer, a model folder, or a file of "
            "MAISI weights."
        ),
    ],
    ct_profile: Annotated[
        CtProfileName | None,
        typer.Option(
            help="Intensity profile for CT. Default: the profile that the tokenizer was trained with."
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes; two hide the reading of scans behind the encoding.")
    ] = 1,
    shard: Annotated[
        str, typer.Option(metavar="K/N", help="Only the K-th of N parts, 1/N to N/N: one for each machine.")
    ] = "1/1",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first scan that fails.")] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Read every entry and every source again, and encode anew what is damaged."
        ),
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cuda, mps or cpu.")] = "auto",
) -> None:
    """Encode every scan of a manifest once: mean and log-variance of its latent, in bfloat16.

    Exit code 0: every scan has an entry. 65: some could not be encoded; they are listed with the reason, and
    the others are there. 2: nothing could be done.
    """
    from meduet_training.data.caches.latent_encoding import Filling, fill_cache, tasks_for
    from meduet_training.data.cohort.scans import read_cohort
    from meduet_training.runtime.messages import exit_with_message

    with exit_with_message():
        filling = Filling(
            folder=output,
            tokenizer=tokenizer,
            ct_profile=ct_profile,
            device=device,
            workers=workers,
            shard=_shard(shard),
            is_strict=strict,
            verifies=verify,
        )
        tasks = tasks_for(read_cohort(manifest))
        number, count = filling.shard
        with _bar(len(tasks[number - 1 :: count])) as advance:
            report = fill_cache(filling, tasks, lambda outcome: advance())
        _tell(report)
        if report.failed:
            raise typer.Exit(EXIT_SOME_FAILED)


@contextmanager
def _bar(num_scans: int) -> Iterator[Callable[[], None]]:
    """A bar with the time that is left; gives a function that is called after each scan."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("Encoding scans", total=num_scans)
        yield lambda: progress.advance(task)


def _shard(text: str) -> tuple[int, int]:
    from napari_meduet.errors import InputError

    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise InputError(f"--shard is written K/N, as in 1/4; got {text!r}.")
    return int(number), int(count)


def _tell(report: "Report") -> None:
    counts = report.counts
    typer.echo(
        f"{counts['encoded']} scans encoded ({report.num_voxels / 1e6:.0f} million voxels), {counts['kept']} "
        f"were there, {counts['failed']} failed."
    )
    for outcome in report.mended:
        typer.echo(f"{outcome.task.shown}: its entry was made anew, for {outcome.reason}.")
    for outcome in report.failed:
        typer.echo(f"{outcome.task.shown}: {outcome.reason}", err=True)
