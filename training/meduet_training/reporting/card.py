"""The run card `run.json`: configuration, code, machine, data and progress of a run.

The card is written before the first step and again at every validation and at the end, each time completely.
A session is the time between the start or the resumption of a run and its next interruption; a session
without an end was killed. Data and tokenizer are identified by digests. The card holds no paths, because
names of folders and files may identify patients.
"""

import json
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, computed_field

import meduet_training
import napari_meduet
from napari_meduet.errors import InputError
from napari_meduet.pipelines.common.outputs import plain
from napari_meduet.volumes.files import write_atomically

CARD = "run.json"
PACKAGES = ("torch", "lightning-fabric", "numpy", "safetensors", "scikit-learn", "tensorboard", "zarr")

Status = Literal["running", "finished", "stopped", "failed"]


class _Record(BaseModel):
    """A part of the card that accepts no unknown fields."""

    model_config = ConfigDict(extra="forbid")


class Session(_Record):
    """One session of a run.

    Attributes:
        started, ended: UTC. `ended` is None while the session runs, and stays None if it was killed.
        first_step: first step of the session; None before it.
        last_step: last known step of the session; a killed session may have made more steps.
        commit: commit of the checkout; None if the package was not installed from a checkout.
        is_dirty: whether the checkout had uncommitted changes.
        devices: devices of this machine; other machines of the run are not listed.
        processes: number of processes that shared each step.
    """

    started: str
    ended: str | None = None
    first_step: int | None = None
    last_step: int | None = None
    version: str
    commit: str | None
    is_dirty: bool | None
    python: str
    platform: str
    packages: dict[str, str]
    cuda: str | None
    devices: list[str]
    processes: int


class RunData(_Record):
    """Data of a run.

    Attributes:
        sha256: digest of the data; a run resumes only with the same data.
        tokenizer_sha256: None for a training on voxels.
        validation: number of validation crops of each domain.
    """

    sha256: str
    domains: list[str]
    latent_shape: list[int]
    tokenizer_sha256: str | None
    validation: dict[str, int]
    validation_note: str


class RunCard(_Record):
    """The run card.

    Attributes:
        total_steps: planned number of steps.
        failure: type of the error that ended the last session. Its message is not kept, because it may name
            files.
    """

    run: str
    status: Status = "running"
    total_steps: int
    config: dict[str, Any]
    data: RunData
    sessions: list[Session] = []
    failure: str | None = None

    @computed_field
    @property
    def resumed(self) -> int:
        """Number of times that the run was resumed."""
        return len(self.sessions) - 1

    @computed_field
    @property
    def steps_done(self) -> int:
        """Number of finished steps, as far as the card knows."""
        known = [session.last_step + 1 for session in self.sessions if session.last_step is not None]
        return max(known, default=0)


def new_session(processes: int) -> Session:
    """Return a session that starts now on this machine."""
    commit, is_dirty = code_version()
    return Session(
        started=now(),
        version=napari_meduet.__version__,
        commit=commit,
        is_dirty=is_dirty,
        python=platform.python_version(),
        platform=platform.platform(terse=True),
        packages={name: version(name) for name in PACKAGES},
        cuda=torch.version.cuda,
        devices=_devices(),
        processes=processes,
    )


def start_session(folder: Path, card: RunCard, session: Session) -> RunCard:
    """Append a session to the card of a folder, or to a new card, write it, and return it.

    Raises:
        InputError: the folder cannot be written, or its card is damaged.
    """
    earlier = read_run_card(folder).sessions if (folder / CARD).exists() else []
    card = card.model_copy(update={"sessions": [*earlier, session]})
    write_run_card(folder, card)
    return card


def read_run_card(folder: Path) -> RunCard:
    """Read the card of the folder of a run.

    Raises:
        InputError: there is no card, or it is damaged.
    """
    path = folder / CARD
    if not path.is_file():
        raise InputError(
            f"{folder.name}: this folder holds no {CARD}, so it is not a run. Give the folder of a run."
        )
    try:
        data = json.loads(path.read_bytes())
        stored = {name: value for name, value in data.items() if name not in RunCard.model_computed_fields}
        return RunCard.model_validate(stored)
    except (ValueError, AttributeError) as error:  # pydantic raises subclasses of ValueError
        raise InputError(
            f"{folder.name}/{CARD}: this file is not a valid run card: it is damaged, or from another "
            "version. Move it away to continue without it."
        ) from error


def write_run_card(folder: Path, card: RunCard) -> None:
    """Write the card, completely or not at all."""
    with write_atomically(folder / CARD, overwrite=True) as temporary:
        temporary.write_text(card.model_dump_json(indent=2) + "\n", "utf-8")


def without_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as JSON types, without its paths."""
    kept = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            kept[name] = without_paths(value)
        elif not isinstance(value, Path):
            kept[name] = value
    return plain(kept)


def code_version() -> tuple[str | None, bool | None]:
    """Return the last commit of this code, and whether the checkout has uncommitted changes."""
    folders = [
        str(Path(str(package.__file__)).resolve().parent) for package in (napari_meduet, meduet_training)
    ]
    commit = _git(folders[-1], "log", "-1", "--format=%H", "--", *folders)
    if not commit:
        return None, None
    return commit, bool(_git(folders[-1], "status", "--porcelain", "--", *folders))


def now() -> str:
    """Return the current time in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git(folder: str, *arguments: str) -> str | None:
    try:
        result = subprocess.run(  # noqa: S603 - all arguments are constants of this file
            ["git", "-C", folder, *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _devices() -> list[str]:
    if torch.cuda.is_available():
        return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return [f"CPU {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"]
