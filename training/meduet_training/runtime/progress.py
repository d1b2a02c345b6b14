"""The progress bar of a training in the terminal, with the remaining time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from meduet_training.runtime.row_log import RowLog

OnStep = Callable[[int, dict[str, Tensor]], None]
OnRow = Callable[[int, float | None], None]
LOG = "log.jsonl"
READ_EVERY = 20  # steps; reading a loss synchronises with the device


def is_read(step: int, steps: int) -> bool:
    """Whether the losses of a step are read: at every twentieth step and at the last one."""
    return step % READ_EVERY == 0 or step + 1 == steps


@contextmanager
def training_bar(description: str, steps: int) -> Iterator[OnRow]:
    """Show a progress bar; yield a function to call with each step, and with its loss or None."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=steps, loss="")

        def on_row(step: int, loss: float | None) -> None:
            if loss is None:
                progress.update(task, completed=step + 1)
            else:
                progress.update(task, completed=step + 1, loss=f"loss {loss:.3f}")

        yield on_row


@contextmanager
def training_progress(description: str, steps: int, folder: Path) -> Iterator[OnStep]:
    """Show a progress bar and write a log; yield a function to call with each step and its losses.

    Args:
        folder: folder of the run. Its `log.jsonl` gets a row every `READ_EVERY` steps. Rows of steps that a
            resumed run repeats are removed.
    """
    with training_bar(description, steps) as bar:
        log = None

        def on_step(step: int, losses: dict[str, Tensor]) -> None:
            nonlocal log
            log = log or RowLog(folder / LOG, step - 1)
            if not is_read(step, steps):
                return bar(step, None)
            row = {name: value.detach().item() for name, value in losses.items()}
            log.append({"step": step} | row)
            return bar(step, row["total"])

        yield on_step
