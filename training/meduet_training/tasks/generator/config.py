"""What the training of a generator was asked to do: one YAML file, with the command line over it.

    preset: small                 # where `training` starts from: tiny, small or paper
    start: warm                   # from the model's encoder, or from scratch
    data: {model: MODEL_FOLDER, scans: manifest.csv}
    training: {batch: 32}

As for a pretraining (tasks/config.py), whose sections `training`, `hardware` and `upkeep` it shares.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, with_config

from meduet_training.engine.config import TrainerOptions, TrainingConfig
from meduet_training.runtime.fabric import Hardware
from meduet_training.tasks.config import SECTIONS, merged, option_names, read_config, validated
from meduet_training.tasks.generator.presets import PRESETS
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.synthesis.generator import GeneratorConfig
from napari_meduet.core.synthesis.objective import GenerationConfig

for _schema in (GeneratorConfig, GenerationConfig):
    with_config(ConfigDict(extra="forbid"))(_schema)

OF_THE_MODEL = ("latent_channels", "patch_size", "content_width", "style_width")


class GeneratorData(BaseModel):
    """What is learnt from.

    Attributes:
        model: the folder of a model; it gives latents, factors and the warm start.
        scans: a manifest, or a folder of scans with an index.json.
        cache_dir: where latents and factors are kept, so that they are computed once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path
    scans: Path
    cache_dir: Path = Path("caches/factors")


class GeneratorRun(BaseModel):
    """A whole run. `training` decides what is learnt, the others how and where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Literal["tiny", "small", "paper"] = "tiny"
    start: Literal["warm", "scratch"] = "warm"
    data: GeneratorData
    training: TrainingConfig
    hardware: Hardware = Hardware()
    upkeep: TrainerOptions = TrainerOptions()


def read_generator_run(path: Path | None, changes: Mapping[str, Any]) -> GeneratorRun:
    """A file's configuration, if any, with changes over it, nested as the file is.

    Raises:
        InputError: there is no such file, it is no YAML, or names or values in it cannot be.
    """
    return read_config(path, changes, _whole, _names)


def for_model(
    training: TrainingConfig, model: MeDUETConfig, sha256: str, start: Literal["warm", "scratch"]
) -> TrainingConfig:
    """The same training of a generator that reads this model's factors."""
    given = {name: getattr(model, name) for name in OF_THE_MODEL}
    network = replace(training.network, **given)
    return replace(training, network=network, model_sha256=sha256, start=start)


def _whole(said: Mapping[str, Any]) -> GeneratorRun:
    return GeneratorRun.model_validate({**said, "training": _training(said)})


def _training(said: Mapping[str, Any]) -> Any:
    """The preset's training with what was said over it; what makes no sense is left for the schema."""
    preset, changes = said.get("preset", "tiny"), said.get("training", {})
    if str(preset) not in PRESETS or not isinstance(changes, Mapping):
        return changes
    whole = merged(asdict(PRESETS[preset]()), changes)
    whole["objective"] = validated(GenerationConfig, whole["objective"], ("training", "objective"))
    whole["network"] = validated(GeneratorConfig, whole["network"], ("training", "network"))
    return whole


def _names(place: list[str], said: Mapping[str, Any]) -> list[str]:
    """The options there are at a place."""
    schema: Any = GeneratorRun
    if place == ["training", "objective"]:
        schema = GenerationConfig
    elif place == ["training", "network"]:
        schema = GeneratorConfig
    elif place == ["data"]:
        schema = GeneratorData
    elif place:
        schema = SECTIONS[place[0]]
    return option_names(schema)
