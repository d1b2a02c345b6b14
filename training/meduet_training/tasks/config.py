"""What a run was asked to do: one YAML file, with the command line over it.

    preset: tiny                  # where `training` starts from: tiny, small or base
    data: {cache: latents, tokenizer: tokenizer}
    training: {batch: 16, objective: {pairing: random}}
    hardware: {strategy: fsdp, accumulate: 2}

What is not said keeps the preset's value; what is unknown is refused by name. A run keeps the whole of it,
every value said, as `config.yaml` in its folder.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator, with_config

from meduet_training.engine.config import TrainerOptions, TrainingConfig
from meduet_training.runtime.fabric import Hardware
from meduet_training.tasks.pretraining.presets import PRESETS, VOXEL_NETWORKS, in_the_papers_words
from napari_meduet.core.meduet import MeDUETConfig
from napari_meduet.core.objective import ObjectiveConfig
from napari_meduet.core.options import CtProfileName
from napari_meduet.core.pretexts.masked import MaskedConfig
from napari_meduet.core.pretexts.masked_diffusion import MaskedDiffusionConfig
from napari_meduet.core.pretexts.residual_unet import ResidualUNetConfig
from napari_meduet.errors import InputError
from napari_meduet.volumes.files import write_atomically

ConfigT = TypeVar("ConfigT", bound=BaseModel)
CONFIG = "config.yaml"  # in a run's folder
ON_VOXELS = "mdae-voxel"  # the pretext that reads scans, not latents
PRETEXTS = {
    "meduet": ObjectiveConfig,
    "mae": MaskedConfig,
    "mdae": MaskedDiffusionConfig,
    ON_VOXELS: MaskedDiffusionConfig,
}
ONE_SOURCE = (
    "Give one of --cache, latents of meduet-cache, --windows, a file made before, or --data, scans to make "
    "windows from."
)
SECTIONS = {"training": TrainingConfig, "hardware": Hardware, "upkeep": TrainerOptions}

for _schema in (Hardware, TrainerOptions, MeDUETConfig, ResidualUNetConfig, *PRETEXTS.values()):
    with_config(ConfigDict(extra="forbid"))(_schema)
with_config(ConfigDict(extra="forbid", arbitrary_types_allowed=True))(TrainingConfig)  # any PretextConfig


class DataConfig(BaseModel):
    """What is learnt from; one of the three sources.

    Attributes:
        cache: a folder that `meduet-cache` filled.
        windows: a file of latent windows.
        scans: a manifest, or a folder of scans with an index.json. Windows are made from them, or for
            `mdae-voxel` prepared scans, and kept in `cache_dir`.
        tokenizer: that wrote the latents; kept beside the run, for its model.
        ct_profile: the intensity profile for CT, for windows or voxels made from `scans`. None: the
            tokenizer's own; latents that exist already have theirs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cache: Path | None = None
    windows: Path | None = None
    scans: Path | None = None
    tokenizer: Path | None = None
    cache_dir: Path = Path("caches/pretrain")
    ct_profile: CtProfileName | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "DataConfig":
        if sum(path is not None for path in (self.cache, self.windows, self.scans)) != 1:
            raise ValueError(ONE_SOURCE)
        return self


class RunConfig(BaseModel):
    """A whole run. `training` decides what is learnt, the others how and where.

    Attributes:
        preset, objective: what `training` started from; kept for the reader.
        pretext: what the network is trained to do.
        data: None: a plan is all that can be made of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Literal["tiny", "small", "base"] = "tiny"
    objective: Literal["corrected", "paper"] = "corrected"
    pretext: Literal["meduet", "mae", "mdae", "mdae-voxel"] = "meduet"
    data: DataConfig | None = None
    training: TrainingConfig
    hardware: Hardware = Hardware()
    upkeep: TrainerOptions = TrainerOptions()

    @model_validator(mode="after")
    def _data_of_the_pretext(self) -> "RunConfig":
        data = self.data
        if self.pretext == ON_VOXELS:
            if data and (data.scans is None or data.tokenizer is not None):
                raise ValueError(
                    f"The pretext {ON_VOXELS} learns from scans as they are: give --data, a manifest or a "
                    "folder with an index.json, and no --tokenizer."
                )
        elif data and data.tokenizer is None:
            raise ValueError("Give --tokenizer, what wrote the latents: it becomes part of the model.")
        return self


def read_run_config(path: Path | None, changes: Mapping[str, Any]) -> RunConfig:
    """A file's configuration, if any, with changes over it, nested as the file is.

    Raises:
        InputError: there is no such file, it is no YAML, or names or values in it cannot be.
    """
    return read_config(path, changes, _whole, _names)


def read_config(
    path: Path | None,
    changes: Mapping[str, Any],
    whole: Callable[[Mapping[str, Any]], ConfigT],
    names: Callable[[list[str], Mapping[str, Any]], list[str]],
) -> ConfigT:
    """What a file and the changes over it say, as `whole` makes a configuration of it.

    Args:
        names: the options there are at a place, for who misspelt one.

    Raises:
        InputError: there is no such file, it is no YAML, or names or values in it cannot be.
    """
    said = merged(_read(path), changes) if path else dict(changes)
    where = f"{path.name}: " if path else ""
    try:
        return whole(said)
    except ValidationError as error:
        raise InputError(where + _sentence(error, lambda place: names(place, said))) from error


def requested_run(
    read: Callable[[Path | None, Mapping[str, Any]], ConfigT],
    output: Path,
    config: Path | None,
    options: Mapping[str, Any],
    settings: list[str] | None,
) -> ConfigT:
    """What a command was asked to do: a file, its options over it, and `--set` over both.

    Where neither a file nor what to learn from is given, the file is that of the run in the folder.

    Args:
        read: makes the configuration of the command, as `read_run_config` does.
        options: nested as a file is, None where not given.

    Raises:
        InputError: the configuration cannot be.
    """
    learnt_from = [value for name, value in options["data"].items() if name != "cache_dir"]
    if not config and not any(learnt_from) and (output / CONFIG).is_file():
        config = output / CONFIG
    return read(config, merged(without_unsaid(options), changes_of(settings or [])))


def write_run_config(config: BaseModel, folder: Path) -> None:
    """Keep all of it in the run's folder, whole or not at all."""
    words = config.model_dump(mode="json", exclude_none=True)
    with write_atomically(folder / CONFIG, overwrite=True) as temporary:
        temporary.write_text(yaml.safe_dump(words, sort_keys=False), encoding="utf-8")


def changes_of(settings: list[str]) -> dict[str, Any]:
    """`--set` options, such as `training.batch=16`, nested as a file is.

    Raises:
        InputError: one of them is no name=value.
    """
    nested: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not all(name.split(".")):
            raise InputError(f"--set {setting}: give a name and a value, such as training.batch=16.")
        change: Any = _parsed(value, f"--set {setting}")
        for key in reversed(name.split(".")):
            change = {key: change}
        nested = merged(nested, change)
    return nested


def without_unsaid(options: Mapping[str, Any]) -> dict[str, Any]:
    """Nested options without those that are None."""
    said = {
        name: without_unsaid(value) if isinstance(value, Mapping) else value
        for name, value in options.items()
    }
    return {name: value for name, value in said.items() if value is not None and value != {}}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both, one over the other where both say something."""
    result = dict(below)
    for name, value in above.items():
        under = result.get(name)
        both = isinstance(value, Mapping) and isinstance(under, Mapping)
        result[name] = merged(cast(Mapping, under), value) if both else value
    return result


def _whole(said: Mapping[str, Any]) -> RunConfig:
    return RunConfig.model_validate({**said, "training": _training(said)})


def _training(said: Mapping[str, Any]) -> Any:
    """The preset's training with what was said over it; its objective is that of the pretext.

    What cannot be understood is handed on as it is, for the schema to refuse.
    """
    preset, pretext = said.get("preset", "tiny"), said.get("pretext", "meduet")
    changes = said.get("training", {})
    is_known = str(preset) in PRESETS and str(pretext) in PRETEXTS
    if not is_known or not isinstance(changes, Mapping):
        return changes
    start = PRESETS[preset]()
    if said.get("objective") == "paper":
        start = in_the_papers_words(start)
    if pretext != "meduet":
        steps = start.objective.total_steps
        start = replace(start, objective=PRETEXTS[pretext](total_steps=steps), linear_start=False)
    if pretext == ON_VOXELS:
        start = replace(start, network=VOXEL_NETWORKS[preset])
    whole = merged(asdict(start), changes)
    whole["objective"] = validated(PRETEXTS[pretext], whole["objective"], ("training", "objective"))
    whole["network"] = validated(_network(pretext), whole["network"], ("training", "network"))
    return whole


def _network(pretext: str) -> type:
    return ResidualUNetConfig if pretext == ON_VOXELS else MeDUETConfig


def validated(schema: type, values: Any, place: tuple[str, ...]) -> Any:
    """An instance of one member of a union, so that mistakes are told of that one alone."""
    try:
        return TypeAdapter(schema).validate_python(values)
    except ValidationError as error:
        details: list[Any] = [
            {"type": d["type"], "loc": (*place, *d["loc"]), "input": d["input"], "ctx": d.get("ctx", {})}
            for d in error.errors()
        ]
        raise ValidationError.from_exception_data(schema.__name__, details) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"{path.name}: the configuration cannot be read ({reason}).") from error
    content = _parsed(text, path.name) or {}
    if not isinstance(content, dict):
        raise InputError(
            f"{path.name}: no configuration; it should begin with names, such as `preset: tiny`."
        )
    return content


def _parsed(text: str, what: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{what}: no YAML{line}; check its indents, quotes and colons.") from error


def _sentence(error: ValidationError, names: Callable[[list[str]], list[str]]) -> str:
    """The first mistake, in the words of who made it."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    name = ".".join(place)
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = names(place[:-1])
        close = difflib.get_close_matches(place[-1], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}."
        return f"there is no option {name}; {hint}"
    if first["type"] == "value_error":
        return str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"{name} is missing."
    return f"{name} cannot be {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}."


def _names(place: list[str], said: Mapping[str, Any]) -> list[str]:
    """The options there are at a place."""
    schema: Any = RunConfig
    if place == ["training", "objective"]:
        schema = PRETEXTS[said.get("pretext", "meduet")]
    elif place == ["training", "network"]:
        schema = _network(said.get("pretext", "meduet"))
    elif place == ["data"]:
        schema = DataConfig
    elif place:
        schema = SECTIONS[place[0]]
    return option_names(schema)


def option_names(schema: Any) -> list[str]:
    """The options that a part of a configuration has."""
    return [field.name for field in fields(schema)] if is_dataclass(schema) else list(schema.model_fields)
