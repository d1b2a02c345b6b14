"""The jobs that were launched from this desktop, so that the name of a job is enough to find it again.

The history contains no key, no password and no configuration.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from meduet_training.jobs.choices import PROGRAM
from meduet_training.jobs.store import JOB_ID
from meduet_training.runtime.folders import make_folder
from napari_meduet.errors import InputError
from napari_meduet.models.folders import data_folder
from napari_meduet.volumes.files import write_atomically


class LaunchedJob(BaseModel):
    """A job on a server.

    Attributes:
        host: name of the server as for `ssh`.
        program: see `server.Server`.
        jobs: see `server.Server`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: str
    host: str
    program: str = PROGRAM
    jobs: str | None = None


def save_launched_job(launched: LaunchedJob) -> None:
    """Add a job to the history."""
    make_folder(_folder())
    with write_atomically(_folder() / f"{launched.job}.json", overwrite=True) as temporary:
        temporary.write_text(launched.model_dump_json(indent=2) + "\n", encoding="utf-8")


def find_launched_job(job: str) -> LaunchedJob:
    """Return the job with this name from the history.

    Raises:
        InputError: no such job was launched from this machine, or its file is damaged.
    """
    path = _folder() / f"{job}.json"
    if not JOB_ID.fullmatch(job) or not path.is_file():
        raise InputError(
            f"{job}: no such job was launched from this machine. `launch list` shows those that were. For "
            "any other job, give --host."
        )
    try:
        return LaunchedJob.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(f"{path.name}: this file is damaged. Delete it and give --host.") from error


def list_launched_jobs() -> list[LaunchedJob]:
    """Return all jobs that were launched from this machine, the newest first."""
    paths = sorted(_folder().glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [find_launched_job(path.stem) for path in paths]


def _folder() -> Path:
    return data_folder() / "launched"
