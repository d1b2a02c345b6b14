"""A progress bar with the time that is left and the loss, for trainings in a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

SHOW_EVERY = 20  # steps: reading a loss waits for the device


@contextmanager
def training_progress(description: str, steps: int) -> Iterator[Callable[[int, dict[str, Tensor]], None]]:
    """Gives a function that is called with each step and its losses."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    with Progress(*columns) as progress:
        task = progress.add_task(description, total=steps, loss="")

        def on_step(step: int, losses: dict[str, Tensor]) -> None:
            progress.update(task, completed=step + 1)
            if step % SHOW_EVERY == 0:
                progress.update(task, loss=f"loss {losses['total'].detach().item():.3f}")

        yield on_step
