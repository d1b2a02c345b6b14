"""What a pretraining keeps in its checkpoints, so that it goes on as if it had never stopped.

Network, teacher, optimizer, the random numbers of every process and the settings it was begun with; the place
in the data and in every schedule follow from the step. Weights and moments are gathered whole and under their
names, so a run may go on with other processes, and with another way of sharing the network among them. It
goes on only from a checkpoint of its own settings and data: to go on from another's would be neither run. How
a checkpoint gets to the disk is `checkpoints.py`'s business.
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

NETWORK, OPTIMIZER, RANDOM = "objective.", "optimizer.", "random."  # begin the names of tensors
MEDUET_PARTS = {"student", "teacher", "log_scale"}  # of what is under NETWORK
Moments = dict[str, dict[str, Tensor]]  # of each parameter, by its name


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a run was begun with, as plain data.

    Attributes:
        training: the whole `TrainingConfig`.
        data_sha256: of the latents it learns from.
        latent_mean, latent_std: of each channel, by which latents are standardised.
        processes, accumulate: a batch goes through the network in so many times so many parts.
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
    """The student of a run, and how far it came."""

    student: MeDUET
    step: int  # so many were taken
    settings: RunSettings


def gather_state(fabric: Fabric, objective: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """All that a checkpoint holds, whole, on the CPU of the first process; the others get nothing.

    To be called on all processes together.
    """
    whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(objective, options=whole)
    moments = cast(Moments, get_optimizer_state_dict(objective, optimizer, options=whole).get("state", {}))
    tensors: dict[str, Any] = {
        f"{RANDOM}{name}": value.cpu() for name, value in _random_states(fabric).items()
    }
    tensors |= {f"{NETWORK}{name}": value for name, value in weights.items()}
    for parameter, state in moments.items():
        tensors |= {f"{OPTIMIZER}{parameter}.{name}": torch.as_tensor(value) for name, value in state.items()}
    return tensors if fabric.is_global_zero else {}


def find_checkpoint(
    folder: Path, settings: RunSettings, say: Callable[[str], None] = print_to_stderr
) -> Checkpoint | None:
    """The run's newest whole checkpoint, if any.

    Args:
        say: hears what is not as it was: a damaged checkpoint, another number of processes.

    Raises:
        InputError: the checkpoint belongs to a run with other settings, or all are damaged.
    """
    checkpoint = newest_checkpoint(folder, say)
    if checkpoint is None:
        return None
    before = settings_of(checkpoint)
    if differing := differing_settings(before, settings):
        raise InputError(
            f"{folder.name}: holds a run with other settings ({', '.join(differing)}); give another output "
            f"folder, or delete its {FOLDER} to start again."
        )
    if (before.processes, before.accumulate) != (settings.processes, settings.accumulate):
        say(_conversion(before, settings))
    return checkpoint


def fill_network(checkpoint: Checkpoint, objective: nn.Module) -> None:
    """Weights of student and teacher; before the network is shared among processes."""
    objective.load_state_dict(checkpoint.under(NETWORK))


def fill_optimizer(
    checkpoint: Checkpoint, fabric: Fabric, objective: nn.Module, optimizer: Optimizer
) -> None:
    """Moments, each process taking its part of them; and the random numbers of this very process."""
    whole = StateDictOptions(full_state_dict=True)  # offloaded, the first process alone would get the groups
    fresh = get_optimizer_state_dict(objective, optimizer, options=whole)  # for its groups
    moments: Moments = {}
    for name, value in checkpoint.under(OPTIMIZER).items():
        parameter, field = name.rsplit(".", 1)
        moments.setdefault(parameter, {})[field] = value
    set_optimizer_state_dict(objective, optimizer, cast(Any, {**fresh, "state": moments}), options=whole)
    random = checkpoint.under(RANDOM)
    if len(random["cpu"]) == fabric.world_size:
        # cloned: torch copies the state by aligned moves, and a row of a file's tensor lies anywhere
        torch.set_rng_state(random["cpu"][fabric.global_rank].clone())
        if fabric.device.type == "cuda" and "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"][fabric.global_rank].clone(), fabric.device)


def load_trained(folder: Path) -> TrainedNetwork:
    """The student of a run's newest whole checkpoint, finished or not.

    Raises:
        InputError: there is no checkpoint, or all are damaged.
    """
    return trained_in(checkpoint_of(folder))


def checkpoint_of(folder: Path) -> Checkpoint:
    """The newest whole checkpoint of a run that has begun.

    Raises:
        InputError: there is none, or all are damaged.
    """
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        raise InputError(f"{folder.name}: holds no {FOLDER}, so nothing was trained here.")
    return checkpoint


def trained_in(checkpoint: Checkpoint) -> TrainedNetwork:
    """The student of one checkpoint.

    Raises:
        InputError: another version wrote it, or its pretext trains another network, or more than one.
    """
    settings = settings_of(checkpoint)
    try:
        student = MeDUET(MeDUETConfig(**with_tuples(settings.training["network"])))
        student.load_state_dict(checkpoint.under(f"{NETWORK}student."))
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{checkpoint.path.name}: holds no MeDUET network, so it has no content and style; it was "
            "trained by another pretext, or by another version."
        ) from error
    if beside := {name.split(".")[0] for name in checkpoint.under(NETWORK)} - MEDUET_PARTS:
        raise InputError(
            f"{checkpoint.path.name}: its pretext trained more than a MeDUET network (also "
            f"{', '.join(sorted(beside))}), so what a model can hold of it is not what was trained."
        )
    return TrainedNetwork(student=student.eval(), step=checkpoint.step, settings=settings)


def settings_of(checkpoint: Checkpoint) -> RunSettings:
    """What the run of a checkpoint was begun with.

    Raises:
        InputError: another version wrote it.
    """
    try:
        return RunSettings(**checkpoint.record["settings"])
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{checkpoint.path.name}: written by another version of this program; go on with that one, or "
            "give another output folder."
        ) from error


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


def _random_states(fabric: Fabric) -> dict[str, Tensor]:
    """The state of torch's random numbers on each process, one row each."""
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
    sentence = (
        f"This run cut its batch for {then} and goes on with {today}: sums are taken in another order, so "
        "its losses agree to rounding, no longer bit for bit."
    )
    if before.processes * before.accumulate != now.processes * now.accumulate:
        sentence += (
            " Contrast of scope `batch` is taken within a part, so it now compares "
            f"{_rows(now)} volumes where it compared {_rows(before)}."
        )
    return sentence


def _rows(settings: RunSettings) -> int:
    return settings.training["batch"] // (settings.processes * settings.accumulate)
