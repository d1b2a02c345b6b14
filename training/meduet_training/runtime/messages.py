"""What a person did wrong is said in one sentence, with exit code 2 and no traceback.

Where several processes train together, the first says what all of them know.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from meduet_training.runtime.signals import EXIT_INTERRUPTED, Stopped
from napari_meduet.errors import InputError

EXIT_INPUT = 2
PAGE_WIDTH = 160  # of tables that are printed into a file


def say_on_stderr(sentence: str) -> None:
    """Tell the person something that does not stop the run."""
    typer.echo(" ".join(sentence.split()), err=True)


class Failed(Exception):
    """A training cannot go on. The message says why, and what to do."""

    exit_code = 1


def is_first_process() -> bool:
    """Whether this process is the first of its job, as its launcher tells it: torchrun, jobs, or srun."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


@contextmanager
def known_to_all() -> Iterator[None]:
    """What is refused in this block, every process refuses, so that the first says it for all."""
    try:
        yield
    except InputError as error:
        if is_first_process():
            raise
        raise _Echo(str(error)) from error


class _Echo(InputError):
    """What the first process says already."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Print on stderr what a person can mend, or that a training was stopped, and leave with its code."""
    try:
        yield
    except InputError as error:
        if not isinstance(error, _Echo):
            say_on_stderr(str(error))
        raise typer.Exit(EXIT_INPUT) from error
    except Stopped as stopped:
        if is_first_process():
            say_on_stderr(str(stopped))
        raise typer.Exit(stopped.exit_code) from stopped
    except Failed as failed:
        say_on_stderr(str(failed))
        raise typer.Exit(failed.exit_code) from failed
    except KeyboardInterrupt as interrupt:
        typer.echo("Stopped; what was finished is kept, and the same command goes on from there.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from interrupt


def page() -> Console:
    """Where tables are printed: as wide as the terminal, and wide enough for them in a file."""
    return Console(width=None if sys.stdout.isatty() else PAGE_WIDTH)
