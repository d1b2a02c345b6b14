"""Download the model of a job into the folder where the plugin looks for models."""

import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from meduet_training.jobs.export import ExportedModel
from meduet_training.remote.history import LaunchedJob
from meduet_training.remote.host import RemoteHost
from meduet_training.remote.server import Server
from meduet_training.runtime.folders import make_folder
from napari_meduet.errors import InputError
from napari_meduet.models.card import CARD_FILE, WEIGHT_FILES
from napari_meduet.models.loading import LARGEST_MODEL_BYTES, load_model


async def download_model(launched: LaunchedJob, models: Path, *, overwrite: bool = False) -> Path:
    """Export the model of a job on the server, download it, and return its folder in `models`.

    Before the folder appears, the digest of each file is checked, and the model is loaded once.

    Raises:
        HostUnreachable: the connection was lost. Nothing was changed.
        InputError: there is no checkpoint yet, the folder already exists, or the model is damaged.
    """
    destination = models / launched.job
    if destination.exists() and not overwrite:
        raise InputError(f"{launched.job}: this model is already in {models}. Replace it with --overwrite.")
    make_folder(models)
    async with RemoteHost.connect(launched.host) as host:
        answer = await Server(host, launched.program, launched.jobs).export(launched.job)
        exported = _checked(answer, launched.host)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=models) as temporary:
            folder = Path(temporary) / launched.job
            folder.mkdir()
            for file in exported.files:
                await host.get(f"{exported.folder}/{file.name}", folder / file.name, file.sha256)
            load_model(folder, "cpu")
            _move(folder, destination)
    return destination


def _checked(answer: dict[str, Any], host: str) -> ExportedModel:
    """Return the model that the server describes, if the description names only files of a model."""
    try:
        exported = ExportedModel.model_validate(answer)
    except ValidationError as error:
        raise InputError(
            f"{host}: this version cannot read the server's description of the model. Install the same "
            "version of napari-meduet on both machines."
        ) from error
    if unknown := sorted({file.name for file in exported.files} - {CARD_FILE, *WEIGHT_FILES}):
        raise InputError(
            f"{host}: the server offers {unknown[0]!r}, no file of a model. Nothing was fetched."
        )
    if sum(file.num_bytes for file in exported.files) > LARGEST_MODEL_BYTES:
        raise InputError(
            f"{host}: the model of the server is larger than {LARGEST_MODEL_BYTES // 2**30} GiB. Nothing was "
            "fetched."
        )
    return exported


def _move(folder: Path, destination: Path) -> None:
    """Move a folder to its destination, and replace a folder that is there."""
    if destination.exists():
        destination.rename(folder.with_name("old"))  # is deleted together with the temporary folder
    folder.rename(destination)
