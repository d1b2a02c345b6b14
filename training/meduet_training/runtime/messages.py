"""Errors of a command as one sentence on stderr, with an exit code and no traceback.

When several processes train together, only rank 0 prints an error that all of them found.
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
PAGE_WIDTH = 160  # characters, for tables that are printed into a file


def print_to_stderr(sentence: str) -> None:
    """Print one line on stderr."""
    typer.echo(" ".join(sentence.split()), err=True)


class TrainingFailed(Exception):
    """A training cannot continue. The message says why, and what to do."""

    exit_code = 1


def is_rank_zero() -> bool:
    """Whether this process is rank 0, from the variables that torchrun, `jobs` or srun set."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


@contextmanager
def report_on_rank_zero() -> Iterator[None]:
    """Let only rank 0 print an InputError that every process raises in this block."""
    try:
        yield
    except InputError as error:
        if is_rank_zero():
            raise
        raise _Echo(str(error)) from error


class _Echo(InputError):
    """An error that rank 0 prints."""


@contextmanager
def exit_with_message() -> Iterator[None]:
    """Print input errors, stops and failures as one sentence on stderr, and exit with their exit code."""
    try:
        yield
    except InputError as error:
        if not isinstance(error, _Echo):
            print_to_stderr(str(error))
        raise typer.Exit(EXIT_INPUT) from error
    except Stopped as stopped:
        if is_rank_zero():
            print_to_stderr(str(stopped))
        raise typer.Exit(stopped.exit_code) from stopped
    except TrainingFailed as failed:
        print_to_stderr(str(failed))
        raise typer.Exit(failed.exit_code) from failed
    except KeyboardInterrupt as interrupt:
        typer.echo("Stopped. Finished parts are kept, and the same command goes on from there.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from interrupt


def page() -> Console:
    """Return a console for tables: as wide as the terminal, and `PAGE_WIDTH` characters wide in a file."""
    return Console(width=None if sys.stdout.isatty() else PAGE_WIDTH)
