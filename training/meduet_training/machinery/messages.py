"""What a person did wrong is said in one sentence, with exit code 2 and no traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from napari_meduet.errors import InputError


@contextmanager
def plain_errors() -> Iterator[None]:
    """Print an InputError on stderr and leave with code 2."""
    try:
        yield
    except InputError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
