"""Export the model of a job, and list its files with their digests.

remote/download.py copies these files to a desktop and checks the digests.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from meduet_training.jobs.store import Job
from meduet_training.runtime.folders import make_folder
from napari_meduet.errors import InputError

MODEL = "model"  # subfolder of the job's folder; it holds the model folder, which has the name of the job


class ExportedFile(BaseModel):
    """A file of an exported model: its name, its size in bytes and its SHA-256."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    num_bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class ExportedModel(BaseModel):
    """The model folder of a job on the server, and its files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: str
    folder: str
    files: list[ExportedFile]


def export_model(job: Job) -> ExportedModel:
    """Write the network of the job's newest checkpoint as a model folder, and return its description.

    Raises:
        InputError: there is no checkpoint yet, or the checkpoint cannot be exported.
    """
    folder = job.folder / MODEL / job.job
    make_folder(folder.parent)
    write_model(job, folder)
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    files = [
        ExportedFile(name=path.name, num_bytes=path.stat().st_size, sha256=sha256_of(path)) for path in paths
    ]
    return ExportedModel(job=job.job, folder=str(folder), files=files)


def write_model(job: Job, folder: Path) -> None:
    """Run `meduet-pretrain export` in a process of its own, so that this process does not import torch.

    Raises:
        InputError: the export fails; the message is its last line of output.
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
        raise InputError(
            f"{job.job}: the model cannot be exported: {lines[-1] if lines else 'no reason given'}"
        )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. The receiver of an exported file compares it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
