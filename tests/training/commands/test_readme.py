"""training/README.md: every command and option it shows exists, its table is that of the presets."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from meduet_training.commands import pretrain, train
from meduet_training.tasks.pretraining.presets import PRESETS

README = (Path(__file__).parents[3] / "training" / "README.md").read_text("utf-8")
PROGRAMS = {"meduet-train": train.app, "meduet-pretrain": pretrain.app}
COMMANDS = re.findall(r"(?:meduet-train|meduet-pretrain) [a-z][^`#\n]*", README)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_exists(command):
    program, name, *words = shlex.split(command)
    known = {
        option
        for parameter in typer.main.get_group(PROGRAMS[program]).commands[name].params
        for option in parameter.opts
    }
    assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize("name", PRESETS)
def test_the_table_says_what_the_preset_does(name):
    run = PRESETS[name]()
    network = f"{run.network.width} × {run.network.depth}"
    assert f"| `{name}` | {network} | {run.batch} | {run.objective.total_steps:,} |" in README
