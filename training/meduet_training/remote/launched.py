"""Which job was launched where, remembered on the desktop, so that a job's name is enough to find it again.

No key, no password and no configuration is kept here.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from meduet_training.jobs.record import JOB_ID
from meduet_training.remote.server import PROGRAM
from meduet_training.runtime.folders import make_folder
from napari_meduet.errors import InputError
from napari_meduet.models.folders import data_folder
from napari_meduet.volumes.files import write_atomically


class Launched(BaseModel):
    """A job on a server.

    Attributes:
        host: as `ssh` takes it.
        program, jobs: as `server.Server`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: str
    host: str
    program: str = PROGRAM
    jobs: str | None = None


def remember(launched: Launched) -> None:
    """Keep it for `recall`."""
    make_folder(_folder())
    with write_atomically(_folder() / f"{launched.job}.json", overwrite=True) as temporary:
        temporary.write_text(launched.model_dump_json(indent=2) + "\n", encoding="utf-8")


def recall(job: str) -> Launched:
    """Where a job of that name was launched from here.

    Raises:
        InputError: none was.
    """
    path = _folder() / f"{job}.json"
    if not JOB_ID.fullmatch(job) or not path.is_file():
        raise InputError(
            f"{job}: no such job was launched from this machine (`launch list` names those that were); give "
            "--host for another's."
        )
    try:
        return Launched.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(f"{path.name}: was edited or damaged; delete it and give --host.") from error


def all_launched() -> list[Launched]:
    """All that were launched from here, the newest first."""
    paths = sorted(_folder().glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [recall(path.stem) for path in paths]


def _folder() -> Path:
    return data_folder() / "launched"
