"""Jobs whose command is a stand-in for a pretraining, and a SLURM cluster that consists of this machine."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import wait_until

from meduet_training.jobs.choices import ExecutorChoice
from meduet_training.jobs.state import status
from meduet_training.jobs.store import Job, Resources
from meduet_training.jobs.submission import cancel, submit

STAND_IN = Path(__file__).with_name("stand_in.py")
SLURM_SCRIPT = Path(__file__).parents[2] / "scripts" / "test-slurm.sh"
CPU = Resources(gpus=0)


@pytest.fixture
def jobs_folder(tmp_path) -> Path:
    return tmp_path / "all jobs"


@pytest.fixture
def submit_stand_in(jobs_folder, tmp_path) -> Iterator[Callable[..., Job]]:
    """Submit a stand-in with a number of steps. Jobs that still run at the end of the test are cancelled."""
    config = tmp_path / "toy.yaml"
    config.write_text("preset: tiny\n")
    submitted = []

    def make(
        steps: int, seconds: float = 0.1, executor: ExecutorChoice = "local", resources: Resources = CPU
    ) -> Job:
        job = submit(
            config,
            jobs_folder,
            resources,
            executor,
            command=lambda config, folder, processes: (
                sys.executable,
                str(STAND_IN),
                str(folder),
                str(steps),
                str(seconds),
            ),
        )
        submitted.append(job)
        return job

    yield make
    for job in submitted:
        if not status(job).is_over:
            cancel(job)
            wait_until(job, lambda found: found.is_over)


@pytest.fixture(scope="session")
def slurm() -> Iterator[None]:
    """A SLURM cluster with one node, this machine. `sbatch`, `squeue` and `scancel` use it in the tests."""
    missing = [
        name
        for name in ("sbatch", "slurmctld", "slurmd", "munged")
        if not (shutil.which(name) or Path("/usr/sbin", name).exists())
    ]
    if missing:
        pytest.skip(f"no {', '.join(missing)} on this machine: scripts/setup-system.sh slurm installs them")
    # The path of a socket must be short, so pytest's own temporary folder cannot be used.
    with (
        tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        started = subprocess.run([SLURM_SCRIPT, "start", folder], capture_output=True, text=True)
        if started.returncode:
            pytest.fail(f"SLURM did not start: {started.stderr}")
        patch.setenv("SLURM_CONF", f"{folder}/slurm.conf")
        yield
        subprocess.run([SLURM_SCRIPT, "stop", folder], check=True)
