"""The model of a job, as files with their digests: what a desktop fetches."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

from meduet_training.jobs.record import Job
from meduet_training.runtime.folders import make_folder
from napari_meduet.errors import InputError

MODEL = "model"  # in the job's folder; in it a folder of the job's name, which is the model's


def export_model(job: Job) -> dict[str, Any]:
    """Write the network of the last checkpoint as a model folder; returns where it is and what its files are.

    Raises:
        InputError: there is no checkpoint yet, or it cannot be exported.
    """
    folder = job.folder / MODEL / job.job
    make_folder(folder.parent)
    write_model(job, folder)
    return _described(job, folder)


def write_model(job: Job, folder: Path) -> None:
    """Let `meduet-pretrain export` write it: in a process of its own, which brings torch along.

    Raises:
        InputError: what that says.
    """
    program = [sys.executable, "-m", "meduet_training.commands.pretrain", "export"]
    result = subprocess.run(  # noqa: S603 our own program
        [*program, str(job.folder), "--output", str(folder), "--overwrite"],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        raise InputError(f"{job.job}: no model can be exported: {lines[-1] if lines else 'no reason given'}")


def _described(job: Job, folder: Path) -> dict[str, Any]:
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    return {
        "job": job.job,
        "folder": str(folder),
        "files": [
            {"name": path.name, "num_bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files
        ],
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
