"""The model of a job, from the server into the folder where the plugin looks for models."""

import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meduet_training.remote.host import RemoteHost
from meduet_training.remote.launched import Launched
from meduet_training.remote.server import Server
from meduet_training.runtime.folders import make_folder
from napari_meduet.errors import InputError
from napari_meduet.models.card import CARD_FILE, WEIGHT_FILES
from napari_meduet.models.loading import LARGEST_MODEL_BYTES, load_model


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    num_bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class _Exported(BaseModel):
    model_config = ConfigDict(extra="forbid")

    job: str
    folder: str
    files: list[_File]


async def fetch(launched: Launched, models: Path, *, overwrite: bool = False) -> Path:
    """Export a job's model on the server and fetch it; returns its folder in `models`.

    Every file is compared with its digest, and the model is loaded once, before the folder appears.

    Raises:
        Unreachable: the connection was lost; nothing was changed.
        InputError: there is no checkpoint yet, the model is there already, or it is not whole.
    """
    destination = models / launched.job
    if destination.exists() and not overwrite:
        raise InputError(f"{launched.job}: is in {models} already; allow to replace it with --overwrite.")
    make_folder(models)
    async with RemoteHost.connect(launched.host) as host:
        answer = await Server(host, launched.program, launched.jobs).export(launched.job)
        exported = _checked(answer, launched.host)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=models) as temporary:
            folder = Path(temporary) / launched.job
            folder.mkdir()
            for file in exported.files:
                await host.get(f"{exported.folder}/{file.name}", folder / file.name, file.sha256)
            load_model(folder, "cpu")
            _move(folder, destination)
    return destination


def _checked(answer: dict, host: str) -> _Exported:
    """What the server announced, if it is a model's files and nothing else."""
    try:
        exported = _Exported.model_validate(answer)
    except ValidationError as error:
        raise InputError(f"{host}: announced a model in a way that this version does not know.") from error
    names = {file.name for file in exported.files}
    if strange := sorted(names - {CARD_FILE, *WEIGHT_FILES}):
        raise InputError(f"{host}: announced {strange[0]!r}, no file of a model; nothing was fetched.")
    if sum(file.num_bytes for file in exported.files) > LARGEST_MODEL_BYTES:
        raise InputError(f"{host}: announced more than 16 GiB of weights; nothing was fetched.")
    return exported


def _move(folder: Path, destination: Path) -> None:
    """Put a folder in its place, where another may be."""
    if destination.exists():
        old = folder.with_name("old")  # goes with the temporary folder
        destination.rename(old)
    folder.rename(destination)
