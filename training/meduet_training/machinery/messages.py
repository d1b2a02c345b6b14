"""What a person did wrong is said in one sentence, with exit code 2 and no traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from meduet_training.machinery.stopping import EXIT_INTERRUPTED, Stopped
from napari_meduet.errors import InputError

EXIT_INPUT = 2


def say_on_stderr(sentence: str) -> None:
    """Tell the person something that does not stop the run."""
    typer.echo(" ".join(sentence.split()), err=True)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Print on stderr what a person can mend, or that a training was stopped, and leave with its code."""
    try:
        yield
    except InputError as error:
        typer.echo(" ".join(str(error).split()), err=True)
        raise typer.Exit(EXIT_INPUT) from error
    except Stopped as stopped:
        typer.echo(str(stopped), err=True)
        raise typer.Exit(stopped.exit_code) from stopped
    except KeyboardInterrupt as interrupt:
        typer.echo("Stopped; what was finished is kept, and the same command goes on from there.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from interrupt
