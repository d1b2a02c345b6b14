"""What the training of a ControlNet was asked to do: one YAML file, with the command line over it.

    data: {model: MODEL_FOLDER, scans: FOLDER}
    training: {batch: 8, objective: {total_steps: 20000}}

As for a generator (generator/config.py), whose sections it shares. The network is the model's generator, and
the classes are those of the scans' labels.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, with_config

from meduet_training.engine.config import TrainerOptions, TrainingConfig
from meduet_training.runtime.fabric import Hardware
from meduet_training.tasks.config import SECTIONS, merged, option_names, read_config, validated
from meduet_training.tasks.generator.config import GeneratorData
from meduet_training.tasks.generator.presets import control
from napari_meduet.core.synthesis.control_objective import ControlConfig
from napari_meduet.core.synthesis.generator import GeneratorConfig

with_config(ConfigDict(extra="forbid"))(ControlConfig)


class ControlRun(BaseModel):
    """A whole run. `training` decides what is learnt, the others how and where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: GeneratorData
    training: TrainingConfig
    hardware: Hardware = Hardware()
    upkeep: TrainerOptions = TrainerOptions()


def read_control_run(path: Path | None, changes: Mapping[str, Any]) -> ControlRun:
    """A file's configuration, if any, with changes over it, nested as the file is.

    Raises:
        InputError: there is no such file, it is no YAML, or names or values in it cannot be.
    """
    return read_config(path, changes, _whole, _names)


def _whole(said: Mapping[str, Any]) -> ControlRun:
    return ControlRun.model_validate({**said, "training": _training(said)})


def _training(said: Mapping[str, Any]) -> Any:
    """The recipe with what was said over it; what makes no sense is left for the schema."""
    changes = said.get("training", {})
    if not isinstance(changes, Mapping):
        return changes
    whole = merged(asdict(control()), changes)
    whole["objective"] = validated(ControlConfig, whole["objective"], ("training", "objective"))
    whole["network"] = validated(GeneratorConfig, whole["network"], ("training", "network"))
    return whole


def _names(place: list[str], said: Mapping[str, Any]) -> list[str]:
    """The options there are at a place."""
    schemas: dict[tuple[str, ...], Any] = {
        (): ControlRun,
        ("data",): GeneratorData,
        ("training", "objective"): ControlConfig,
        ("training", "network"): GeneratorConfig,
    }
    return option_names(schemas.get(tuple(place)) or SECTIONS[place[0]])
