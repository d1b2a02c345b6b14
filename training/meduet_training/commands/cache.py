"""`meduet-cache`: encode every scan of a manifest once, for trainings that read the latents many times.

The same command continues where it stopped. Several processes and several machines can fill one cache. Torch
is imported inside the command, so that `--help` opens at once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_meduet.core.options import CtProfileName

if TYPE_CHECKING:
    from meduet_training.data.caches.latent_encoding import CacheReport

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

EXIT_SOME_FAILED = 65  # EX_DATAERR of sysexits.h


@app.command()
def cache(
    manifest: Annotated[
        Path,
        typer.Argument(help="Manifest of meduet-cohort, or a folder of scans with an index.json."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Cache directory.")],
    tokenizer: Annotated[
        Path,
        typer.Option(
            help="Tokenizer that encodes the scans: a folder of meduet-train tokenizer, a model folder, or a "
            "file of MAISI weights."
        ),
    ],
    ct_profile: Annotated[
        CtProfileName | None,
        typer.Option(
            help="Intensity profile for CT. Default: the profile that the tokenizer was trained with."
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            help="Number of processes. With 2, one reads scans while the other encodes. Default: 1."
        ),
    ] = 1,
    shard: Annotated[
        str,
        typer.Option(
            metavar="K/N",
            help="Encode only the K-th of N parts of the manifest, for example one part on each machine. "
            "Default: 1/1, all scans.",
        ),
    ] = "1/1",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first scan that fails.")] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Read every entry and every source file again, and replace damaged entries."
        ),
    ] = False,
    device: Annotated[
        str, typer.Option(help="Device for the encoding: auto, cuda, mps or cpu. Default: auto.")
    ] = "auto",
) -> None:
    """Encode every scan of a manifest once: mean and log-variance of its latent, in bfloat16.

    Exit code 0: every scan has an entry. 65: some scans could not be encoded and are listed with the reason;
    the other scans have an entry. 2: nothing was done.
    """
    from meduet_training.data.caches.latent_encoding import CacheOptions, encoding_tasks, fill_cache
    from meduet_training.data.cohort.scans import read_cohort
    from meduet_training.runtime.messages import exit_with_message

    with exit_with_message():
        options = CacheOptions(
            folder=output,
            tokenizer=tokenizer,
            ct_profile=ct_profile,
            device=device,
            workers=workers,
            shard=_shard(shard),
            is_strict=strict,
            verifies=verify,
        )
        tasks = encoding_tasks(read_cohort(manifest))
        number, count = options.shard
        with _progress_bar(len(tasks[number - 1 :: count])) as advance:
            report = fill_cache(options, tasks, lambda outcome: advance())
        _print_report(report)
        if report.failed:
            raise typer.Exit(EXIT_SOME_FAILED)


@contextmanager
def _progress_bar(num_scans: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar with the remaining time; yield a function to call after each scan."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("Encoding scans", total=num_scans)
        yield lambda: progress.advance(task)


def _shard(text: str) -> tuple[int, int]:
    """Return K and N of `--shard K/N`."""
    from napari_meduet.errors import InputError

    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise InputError(f"--shard has the form K/N, such as 1/4; got {text!r}.")
    return int(number), int(count)


def _print_report(report: "CacheReport") -> None:
    counts = report.counts
    typer.echo(
        f"{counts['encoded']} scans encoded ({report.num_voxels / 1e6:.0f} million voxels), {counts['kept']} "
        f"already in the cache, {counts['failed']} failed."
    )
    for outcome in report.replaced:
        typer.echo(f"{outcome.task.shown}: its entry was replaced, because {outcome.reason}.")
    for outcome in report.failed:
        typer.echo(f"{outcome.task.shown}: {outcome.reason}", err=True)
