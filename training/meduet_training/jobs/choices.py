"""Choices and defaults of the job commands. Without heavy imports, so that `--help` opens at once."""

from pathlib import Path
from typing import Literal

PROGRAM = "meduet-pretrain"  # the command that runs jobs, on this machine and on a server
JOBS_FOLDER = Path("~/meduet-jobs")

Executor = Literal["slurm", "local"]
ExecutorChoice = Literal["auto", "slurm", "local"]  # auto: SLURM if this machine has it, else this machine
