"""What a person sees of a training: a bar with the time that is left in the terminal, a log of all losses."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from meduet_training.machinery.folders import make_folder
from napari_meduet.volumes.files import write_atomically

OnStep = Callable[[int, dict[str, Tensor]], None]
LOG = "log.jsonl"
READ_EVERY = 20  # steps: reading a loss waits for the device


@contextmanager
def training_progress(description: str, steps: int, folder: Path) -> Iterator[OnStep]:
    """Gives a function that is called with each step and its losses.

    Args:
        folder: of the run. Its `log.jsonl` gets a row now and then, and loses those of steps that are
            taken again.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=steps, loss="")
        log = None

        def on_step(step: int, losses: dict[str, Tensor]) -> None:
            nonlocal log
            log = log or _log_before(step, folder)
            progress.update(task, completed=step + 1)
            if step % READ_EVERY == 0 or step + 1 == steps:
                row = {name: value.detach().item() for name, value in losses.items()}
                with log.open("a") as file:
                    file.write(json.dumps({"step": step} | row) + "\n")
                progress.update(task, loss=f"loss {row['total']:.3f}")

        yield on_step


def _log_before(step: int, folder: Path) -> Path:
    """The folder's log with its rows of earlier steps alone."""
    make_folder(folder)
    log = folder / LOG
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    with write_atomically(log, overwrite=True) as temporary:
        temporary.write_text("".join(line for line in lines if _is_before(step, line)))
    return log


def _is_before(step: int, line: str) -> bool:
    try:
        return json.loads(line)["step"] < step
    except ValueError:  # cut off when the process was killed
        return False
