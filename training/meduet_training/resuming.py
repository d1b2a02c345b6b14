"""What a pretraining keeps in its checkpoints, so that it goes on as if it had never stopped.

Network, teacher, optimizer and the settings it was begun with; random numbers and the place in the data
follow from the step. A run goes on only from a checkpoint of its own settings and data: to go on from
another's would be neither run. How a checkpoint gets to the disk is `checkpoints.py`'s business.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from meduet_training.checkpoints import FOLDER, Checkpoint, newest_checkpoint
from meduet_training.machinery.messages import say_on_stderr
from napari_meduet.core.meduet import MeDUET, MeDUETConfig
from napari_meduet.errors import InputError


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a run was begun with, as plain data.

    Attributes:
        training: the whole `Pretraining`.
        data_sha256: of the latents it learns from.
        latent_mean, latent_std: of each channel, by which latents are standardised.
        processes: that share the batch.
    """

    training: dict[str, Any]
    data_sha256: str
    domains: list[str]
    latent_mean: list[float]
    latent_std: list[float]
    processes: int = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedNetwork:
    """The student of a run, and how far it came."""

    student: MeDUET
    step: int  # so many were taken
    settings: RunSettings


def tensors_of(objective: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Student, teacher and the optimizer's moments, under the names that a checkpoint gives them."""
    tensors = {f"objective.{name}": value for name, value in objective.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    return tensors


def resume(
    folder: Path,
    objective: nn.Module,
    optimizer: Optimizer,
    settings: RunSettings,
    say: Callable[[str], None] = say_on_stderr,
) -> int:
    """Fill network and optimizer from the run's newest whole checkpoint, if any; the step to go on with.

    Args:
        say: hears what is not as it was: a damaged checkpoint, another number of processes.

    Raises:
        InputError: the checkpoint belongs to a run with other settings, or all are damaged.
    """
    checkpoint = newest_checkpoint(folder, say)
    if checkpoint is None:
        return 0
    before = _settings_of(checkpoint)
    if differing := differing_settings(before, settings):
        raise InputError(
            f"{folder.name}: holds a run with other settings ({', '.join(differing)}); give another output "
            f"folder, or delete its {FOLDER} to start again."
        )
    if before.processes != settings.processes:
        say(
            f"This run had {before.processes} processes and goes on with {settings.processes}: sums are "
            "taken in another order, so its losses agree to rounding, no longer bit for bit."
        )
    objective.load_state_dict(checkpoint.under("objective."))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in checkpoint.under("optimizer.").items():
        number, field = name.split(".", 1)
        state.setdefault(int(number), {})[field] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return checkpoint.step


def load_trained(folder: Path) -> TrainedNetwork:
    """The student of a run's newest whole checkpoint, finished or not.

    Raises:
        InputError: there is no checkpoint, or all are damaged.
    """
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        raise InputError(f"{folder.name}: holds no {FOLDER}, so nothing was pretrained here.")
    settings = _settings_of(checkpoint)
    network = settings.training["network"]
    student = MeDUET(MeDUETConfig(**network | {"grid": tuple(network["grid"])}))
    student.load_state_dict(checkpoint.under("objective.student."))
    return TrainedNetwork(student=student.eval(), step=checkpoint.step, settings=settings)


def differing_settings(before: RunSettings, now: RunSettings) -> list[str]:
    """The names of what is not the same, such as `objective.total_steps`; the processes may differ."""
    old, new = (flat(json.loads(json.dumps(settings.training))) for settings in (before, now))
    differing = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
    return differing + (["data"] if before.data_sha256 != now.data_sha256 else [])


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings under dotted names, such as `objective.total_steps`."""
    named = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            named |= {f"{name}.{inner}": each for inner, each in flat(value).items()}
        else:
            named[name] = value
    return named


def record_of(settings: RunSettings) -> dict[str, Any]:
    """What a checkpoint says of its run."""
    return {"settings": asdict(settings)}


def _settings_of(checkpoint: Checkpoint) -> RunSettings:
    try:
        return RunSettings(**checkpoint.record["settings"])
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{checkpoint.path.name}: written by another version of this program; go on with that one, or "
            "give another output folder."
        ) from error
