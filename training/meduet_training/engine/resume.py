"""The content of a checkpoint, from which a run resumes bit for bit.

A checkpoint holds network, teacher, optimizer, the random state of every process and the settings of the run.
The position in the data and in every schedule follows from the step. Weights and moments are gathered in full
and by name, so a run may resume with another number of processes or another strategy. A run resumes only from
a checkpoint with its own settings and data. `checkpoints.py` writes and reads the files.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from meduet_training.engine.checkpoints import FOLDER, Checkpoint, newest_checkpoint
from meduet_training.runtime.messages import print_to_stderr
from napari_meduet.core.meduet import MeDUET, MeDUETConfig
from napari_meduet.errors import InputError
from napari_meduet.models.configs import with_tuples

NETWORK, OPTIMIZER, RANDOM = "objective.", "optimizer.", "random."  # prefixes of tensor names
MEDUET_PARTS = {"student", "teacher", "log_scale"}  # first names under NETWORK
Moments = dict[str, dict[str, Tensor]]  # moments of each parameter, by its name


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings of a run, as plain data.

    Attributes:
        training: the `TrainingConfig`.
        data_sha256: hash of the latents.
        latent_mean, latent_std: of each channel, for standardising the latents.
        processes, accumulate: number of processes, and of parts into which each process splits its batch.
    """

    training: dict[str, Any]
    data_sha256: str
    domains: list[str]
    latent_mean: list[float]
    latent_std: list[float]
    processes: int = 1
    accumulate: int = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedNetwork:
    """The student of a run after `step` steps."""

    student: MeDUET
    step: int
    settings: RunSettings


def gather_state(fabric: Fabric, objective: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the full content of a checkpoint on the CPU of rank zero, and an empty one on other ranks.

    All processes call this together.
    """
    full = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(objective, options=full)
    moments = cast(Moments, get_optimizer_state_dict(objective, optimizer, options=full).get("state", {}))
    tensors: dict[str, Any] = {
        f"{RANDOM}{name}": value.cpu() for name, value in _random_states(fabric).items()
    }
    tensors |= {f"{NETWORK}{name}": value for name, value in weights.items()}
    for parameter, state in moments.items():
        tensors |= {f"{OPTIMIZER}{parameter}.{name}": torch.as_tensor(value) for name, value in state.items()}
    return tensors if fabric.is_global_zero else {}


def find_checkpoint(
    folder: Path, settings: RunSettings, log: Callable[[str], None] = print_to_stderr
) -> Checkpoint | None:
    """Return the checkpoint from which a run resumes; None if its folder has no checkpoint.

    Args:
        log: receives a message if a checkpoint is damaged, or if the number of processes has changed.

    Raises:
        InputError: the checkpoint belongs to a run with other settings, or all checkpoints are damaged.
    """
    checkpoint = newest_checkpoint(folder, log)
    if checkpoint is None:
        return None
    before = settings_of(checkpoint)
    if differing := differing_settings(before, settings):
        raise InputError(
            f"{folder.name}: holds a run with other settings ({', '.join(differing)}); give another output "
            f"folder, or delete its {FOLDER} to start again."
        )
    if (before.processes, before.accumulate) != (settings.processes, settings.accumulate):
        log(_conversion(before, settings))
    return checkpoint


def fill_network(checkpoint: Checkpoint, objective: nn.Module) -> None:
    """Load the weights of student and teacher, before Fabric sets up the objective."""
    objective.load_state_dict(checkpoint.under(NETWORK))


def fill_optimizer(
    checkpoint: Checkpoint, fabric: Fabric, objective: nn.Module, optimizer: Optimizer
) -> None:
    """Load the moments, or the shard of this process, and the random state of this process."""
    full = StateDictOptions(full_state_dict=True)  # with cpu_offload only rank zero would get the groups
    fresh = get_optimizer_state_dict(objective, optimizer, options=full)  # for its parameter groups
    moments: Moments = {}
    for name, value in checkpoint.under(OPTIMIZER).items():
        parameter, field = name.rsplit(".", 1)
        moments.setdefault(parameter, {})[field] = value
    set_optimizer_state_dict(objective, optimizer, cast(Any, {**fresh, "state": moments}), options=full)
    random = checkpoint.under(RANDOM)
    if len(random["cpu"]) == fabric.world_size:
        # Cloned, because torch needs aligned memory, and a row of a file's tensor may start at any address.
        torch.set_rng_state(random["cpu"][fabric.global_rank].clone())
        if fabric.device.type == "cuda" and "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"][fabric.global_rank].clone(), fabric.device)


def load_trained(folder: Path) -> TrainedNetwork:
    """Return the student in the newest intact checkpoint of a run, finished or not.

    Raises:
        InputError: there is no checkpoint, or all checkpoints are damaged.
    """
    return trained_in(checkpoint_of(folder))


def checkpoint_of(folder: Path) -> Checkpoint:
    """Return the newest intact checkpoint of a run.

    Raises:
        InputError: there is no checkpoint, or all checkpoints are damaged.
    """
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        raise InputError(f"{folder.name}: holds no {FOLDER}, so nothing was trained here.")
    return checkpoint


def trained_in(checkpoint: Checkpoint) -> TrainedNetwork:
    """Return the student in a checkpoint.

    Raises:
        InputError: another version wrote the checkpoint, or its pretext trains another network.
    """
    settings = settings_of(checkpoint)
    try:
        student = MeDUET(MeDUETConfig(**with_tuples(settings.training["network"])))
        student.load_state_dict(checkpoint.under(f"{NETWORK}student."))
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{checkpoint.path.name}: holds no MeDUET network, so it has no content and style; it was "
            "trained with another pretext, or by another version of this program."
        ) from error
    if others := {name.split(".")[0] for name in checkpoint.under(NETWORK)} - MEDUET_PARTS:
        raise InputError(
            f"{checkpoint.path.name}: its pretext trained more than a MeDUET network (also "
            f"{', '.join(sorted(others))}), and a model folder cannot hold these parts."
        )
    return TrainedNetwork(student=student.eval(), step=checkpoint.step, settings=settings)


def settings_of(checkpoint: Checkpoint) -> RunSettings:
    """Return the settings of the run that wrote a checkpoint.

    Raises:
        InputError: another version of this program wrote it.
    """
    try:
        return RunSettings(**checkpoint.record["settings"])
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{checkpoint.path.name}: written by another version of this program. Resume with that version, "
            "or give another output folder."
        ) from error


def differing_settings(before: RunSettings, now: RunSettings) -> list[str]:
    """Return the names of settings that differ, such as `objective.total_steps`. Processes may differ."""
    old, new = (flat(json.loads(json.dumps(settings.training))) for settings in (before, now))
    differing = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
    return differing + (["data"] if before.data_sha256 != now.data_sha256 else [])


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings under dotted names.

    Examples:
        >>> flat({"batch": 8, "objective": {"total_steps": 300}})
        {'batch': 8, 'objective.total_steps': 300}
    """
    named = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            named |= {f"{name}.{inner}": each for inner, each in flat(value).items()}
        else:
            named[name] = value
    return named


def record_of(settings: RunSettings) -> dict[str, Any]:
    """Return the record of a checkpoint: everything that is not a tensor."""
    return {"settings": asdict(settings)}


def _random_states(fabric: Fabric) -> dict[str, Tensor]:
    """Return the random state of torch on every process, one row for each process."""
    states = {"cpu": torch.get_rng_state()}
    if fabric.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(fabric.device)
    return {
        name: torch.stack(_from_all(state.to(fabric.device), fabric.world_size))
        for name, state in states.items()
    }


def _from_all(tensor: Tensor, num_processes: int) -> list[Tensor]:
    if num_processes == 1:
        return [tensor]
    gathered = [torch.empty_like(tensor) for _ in range(num_processes)]
    torch.distributed.all_gather(gathered, tensor)
    return gathered


def _conversion(before: RunSettings, now: RunSettings) -> str:
    then, today = (f"{each.processes} processes x {each.accumulate} parts" for each in (before, now))
    message = (
        f"This run split its batch for {then} and goes on with {today}. Sums are computed in another order, "
        "so its losses agree to rounding, and no longer bit for bit."
    )
    if before.processes * before.accumulate != now.processes * now.accumulate:
        message += (
            " The contrast of scope `batch` compares the volumes of one part: now "
            f"{_rows(now)} volumes instead of {_rows(before)}."
        )
    return message


def _rows(settings: RunSettings) -> int:
    return settings.training["batch"] // (settings.processes * settings.accumulate)
