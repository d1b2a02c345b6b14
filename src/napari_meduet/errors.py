"""What the project raises for people, and how a pipeline tells how far it is."""

from collections.abc import Callable

OnProgress = Callable[[float, str], None]
"""Called with the fraction done (0 to 1) and a short phrase: what is being done."""


class InputError(ValueError):
    """What a person gave cannot be used.

    The message is one sentence or two for that person: what came, what was expected, what to do. It names
    the file (its base name) and the field. The command line prints it on stderr and exits with 2.
    """


class SeveralVolumes(InputError):
    """A file holds several volumes, and none was chosen."""

    def __init__(self, sentence: str, num_volumes: int) -> None:
        super().__init__(sentence)
        self.num_volumes = num_volumes


class Cancelled(Exception):
    """Raised by an `OnProgress` callback to stop the pipeline that calls it."""
