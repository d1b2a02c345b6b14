"""The card of a run, `run.json`: what was trained, by which code, on which machine and data, and how far.

It is written before the first step and again at the end, whole each time. Sessions are the stretches between
an interruption and the next; a session without an end was killed. Data and tokenizer are named by digest; no
path is on the card, because folders and files may name patients.
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
    """A part of the card: without room for what nobody declared."""

    model_config = ConfigDict(extra="forbid")


class Session(_Record):
    """One stretch of a run.

    Attributes:
        ended: UTC; None while it runs, and for ever where it was killed.
        first_step: taken in it; None where none was.
        last_step: taken in it, as far as is known: killed, it took more.
        commit: of the checkout; None where the package was installed without one.
        is_dirty: the checkout had changes that no commit holds.
        devices: of this machine; other machines of the run are not asked.
        processes: that shared each step.
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
    """What it learns from.

    Attributes:
        sha256: identity of the data; a run goes on only with the same.
        tokenizer_sha256: None where it learns from voxels.
        validation: how many crops of which domain the figures are about.
    """

    sha256: str
    domains: list[str]
    latent_shape: list[int]
    tokenizer_sha256: str | None
    validation: dict[str, int]
    validation_note: str


class RunCard(_Record):
    """The card.

    Attributes:
        total_steps: the length of the run.
        failure: what kind of error ended the last session; its message may name files and is not kept.
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
        """How often it was gone on with."""
        return len(self.sessions) - 1

    @computed_field
    @property
    def steps_done(self) -> int:
        """Taken, as far as the card knows."""
        known = [session.last_step + 1 for session in self.sessions if session.last_step is not None]
        return max(known, default=0)


def this_session(processes: int) -> Session:
    """A session that begins now, here."""
    commit, is_dirty = code_state()
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


def begun_card(folder: Path, card: RunCard, session: Session) -> RunCard:
    """The card at the beginning of a session: the folder's own with a session more, or a new one; written.

    Raises:
        InputError: the folder cannot be written, or what lies there is no card.
    """
    earlier = read_run_card(folder).sessions if (folder / CARD).exists() else []
    card = card.model_copy(update={"sessions": [*earlier, session]})
    write_run_card(folder, card)
    return card


def read_run_card(folder: Path) -> RunCard:
    """The card of a run's folder.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = folder / CARD
    if not path.is_file():
        raise InputError(f"{folder.name}: holds no {CARD}, so it is no run of meduet-pretrain.")
    try:
        data = json.loads(path.read_bytes())
        stored = {name: value for name, value in data.items() if name not in RunCard.model_computed_fields}
        return RunCard.model_validate(stored)
    except (ValueError, AttributeError) as error:  # pydantic's errors are among them
        raise InputError(
            f"{folder.name}/{CARD}: is no card of a run: damaged, or of another version. Move it away "
            "to go on without it."
        ) from error


def write_run_card(folder: Path, card: RunCard) -> None:
    """Write the card, whole or not at all."""
    with write_atomically(folder / CARD, overwrite=True) as temporary:
        temporary.write_text(card.model_dump_json(indent=2) + "\n", "utf-8")


def shareable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as JSON types, without its paths."""
    kept = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            kept[name] = shareable(value)
        elif not isinstance(value, Path):
            kept[name] = value
    return plain(kept)


def code_state() -> tuple[str | None, bool | None]:
    """The last commit that touched this code, and whether the checkout has changes that none holds."""
    folders = [
        str(Path(str(package.__file__)).resolve().parent) for package in (napari_meduet, meduet_training)
    ]
    commit = _git(folders[-1], "log", "-1", "--format=%H", "--", *folders)
    if not commit:
        return None, None
    return commit, bool(_git(folders[-1], "status", "--porcelain", "--", *folders))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git(folder: str, *words: str) -> str | None:
    try:
        found = subprocess.run(  # noqa: S603 - no word of it comes from outside
            ["git", "-C", folder, *words],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def _devices() -> list[str]:
    if torch.cuda.is_available():
        return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return [f"CPU {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"]
