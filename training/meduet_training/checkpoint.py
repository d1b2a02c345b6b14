"""Checkpoints of a pretraining: one safetensors file with network, teacher, optimizer and settings.

A run goes on only from a checkpoint of its own settings and data: to go on from another's would be neither
run. Nothing is unpickled.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from napari_meduet.core.meduet import MeDUET, MeDUETConfig
from napari_meduet.core.objective import Objective
from napari_meduet.errors import InputError
from napari_meduet.volumes.files import write_atomically

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a run was begun with, as plain data.

    Attributes:
        training: the whole `Pretraining`.
        data_sha256: of the latents it learns from.
        latent_mean, latent_std: of each channel, by which latents are standardised.
    """

    training: dict[str, Any]
    data_sha256: str
    domains: list[str]
    latent_mean: list[float]
    latent_std: list[float]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedNetwork:
    """The student of a run, and how far it came."""

    student: MeDUET
    step: int  # so many were taken
    settings: RunSettings


def save_checkpoint(
    folder: Path, done: int, objective: Objective, optimizer: Optimizer, settings: RunSettings
) -> None:
    """Write all that the run needs to go on after `done` steps, whole or not at all."""
    tensors = {f"objective.{name}": value for name, value in objective.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    words = {"step": str(done), "settings": json.dumps(asdict(settings), sort_keys=True)}
    with write_atomically(folder / CHECKPOINT, overwrite=True) as temporary:
        save_file(tensors, temporary, metadata=words)


def resume(folder: Path, objective: Objective, optimizer: Optimizer, settings: RunSettings) -> int:
    """Fill network and optimizer from the folder's checkpoint, if it has one; the step to go on with.

    Raises:
        InputError: the checkpoint belongs to a run with other settings, or is damaged.
    """
    if not (folder / CHECKPOINT).exists():
        return 0
    step, before, tensors = _read(folder)
    old, new = (flat(json.loads(json.dumps(record.training))) for record in (before, settings))
    differing = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
    if before.data_sha256 != settings.data_sha256:
        differing.append("data")
    if differing:
        raise InputError(
            f"{folder.name}/{CHECKPOINT} belongs to a run with other settings ({', '.join(differing)}); give "
            "another output folder, or delete it to start again."
        )
    objective.load_state_dict(_under("objective.", tensors))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _under("optimizer.", tensors).items():
        number, field = name.split(".", 1)
        state.setdefault(int(number), {})[field] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return step


def load_trained(folder: Path) -> TrainedNetwork:
    """The student of a run's checkpoint, finished or not.

    Raises:
        InputError: there is no checkpoint, or it is damaged.
    """
    if not (folder / CHECKPOINT).is_file():
        raise InputError(f"{folder.name}: holds no {CHECKPOINT}, so nothing was pretrained here.")
    step, settings, tensors = _read(folder)
    network = settings.training["network"]
    student = MeDUET(MeDUETConfig(**network | {"grid": tuple(network["grid"])}))
    student.load_state_dict(_under("objective.student.", tensors))
    return TrainedNetwork(student=student.eval(), step=step, settings=settings)


def _read(folder: Path) -> tuple[int, RunSettings, dict[str, Tensor]]:
    path = folder / CHECKPOINT
    try:
        with safe_open(path, framework="pt") as file:
            words = file.metadata()
        return int(words["step"]), RunSettings(**json.loads(words["settings"])), load_file(path)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder.name}/{CHECKPOINT}: damaged, or of another version; delete it to start again."
        ) from error


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Nested settings under dotted names, such as `objective.total_steps`."""
    named = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            named |= {f"{name}.{inner}": each for inner, each in flat(value).items()}
        else:
            named[name] = value
    return named
