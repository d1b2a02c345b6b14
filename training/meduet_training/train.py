"""`meduet-train`: the smaller trainings, each a command. `meduet-pretrain` has a program of its own."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help=__doc__)


@app.callback()
def main() -> None:
    """Keep `tokenizer` a subcommand while it is the only one."""


@app.command()
def tokenizer(
    data: Annotated[Path, typer.Argument(help="Folder of scans with an index.json.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for weights and log.")],
    prepared: Annotated[Path, typer.Option(help="Cache of prepared scans.")] = Path("caches/prepared"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    steps: Annotated[int | None, typer.Option(help="Steps; the default fits the device.")] = None,
) -> None:
    """Train the wavelet tokenizer on the train split of a cohort."""
    from meduet_training.data.cohort import read_cohort, trainable
    from meduet_training.data.prepared import load_prepared, prepare_cohort
    from meduet_training.machinery.fabric import make_fabric
    from meduet_training.recipes.demo import demo
    from meduet_training.tokenizer_run import run_tokenizer_training

    fabric = make_fabric(device)
    scans = [load_prepared(path) for path in prepare_cohort(trainable(read_cohort(data)), prepared)]
    run_tokenizer_training(fabric, scans, demo(fabric.device.type, steps=steps).tokenizer, output)
