"""A `meduet-pretrain` for the server in tests: real `jobs`, and tests/jobs/stand_in.py as pretraining.

The name of a configuration file contains the number of steps: `toy-20.yaml`. The model is the embedded one.
"""

import shutil
import sys
from functools import partial
from pathlib import Path

import typer

import napari_meduet
from meduet_training.commands import jobs as commands
from meduet_training.jobs import export, submission

DEMO = Path(napari_meduet.__file__).parent / "models" / "demo"
STAND_IN = Path(__file__).parents[1] / "jobs" / "stand_in.py"


def stand_in(config: Path, folder: Path, processes: int) -> list[str]:
    return [sys.executable, str(STAND_IN), str(folder), folder.name.split("-")[1]]


def write_model(job, folder: Path) -> None:
    shutil.copytree(DEMO, folder, dirs_exist_ok=True)


submission.submit = partial(submission.submit, command=stand_in)
export.write_model = write_model
app = typer.Typer()
app.add_typer(commands.app, name="jobs")
app.command("other")(lambda: None)
app()
