"""Reading and writing the configuration of a run: one YAML file, with command line options over it.

    preset: tiny                  # where `training` starts from
    training: {batch: 16, objective: {pairing: random}}
    hardware: {strategy: fsdp, accumulate: 2}
    trainer: {validate_every: 500}

Values that are not given keep the value of the preset, and unknown names are refused. A run stores all of its
values as `config.yaml` in its folder. The `config.py` of each task holds its sections. `task.py` turns a
request, which is nested like the file, into a configuration.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, with_config

from meduet_training.engine.config import TrainerOptions, TrainingConfig
from meduet_training.runtime.fabric import Hardware
from napari_meduet.errors import InputError
from napari_meduet.volumes.files import write_atomically

CONFIG = "config.yaml"  # in the folder of a run

for _schema in (Hardware, TrainerOptions):
    with_config(ConfigDict(extra="forbid"))(_schema)
with_config(ConfigDict(extra="forbid", arbitrary_types_allowed=True))(TrainingConfig)  # any PretextConfig


class RunConfig(BaseModel):
    """Configuration of a run: the sections that all tasks share.

    Attributes:
        training: decides the result of the run.
        hardware, trainer: decide how and where it is computed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    training: TrainingConfig
    hardware: Hardware = Hardware()
    trainer: TrainerOptions = TrainerOptions()


def write_run_config(config: RunConfig, folder: Path) -> None:
    """Store all values of a configuration in the folder of the run."""
    values = config.model_dump(mode="json", exclude_none=True)
    shared = {name: values.pop(name) for name in RunConfig.model_fields}
    with write_atomically(folder / CONFIG, overwrite=True) as temporary:
        temporary.write_text(yaml.safe_dump(values | shared, sort_keys=False), encoding="utf-8")


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the content of a configuration file.

    Raises:
        InputError: the file cannot be read, or is not a YAML mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise InputError(f"{path.name}: the configuration cannot be read ({reason}).") from error
    content = _parsed(text, path.name) or {}
    if not isinstance(content, dict):
        raise InputError(
            f"{path.name}: no configuration; it should begin with names, such as `preset: tiny`."
        )
    return content


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """Return `--set` options such as `training.batch=16`, nested like the file.

    Raises:
        InputError: an option is not NAME=VALUE.

    Examples:
        >>> parse_settings(["training.batch=16", "training.clip=0.5"])
        {'training': {'batch': 16, 'clip': 0.5}}
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


def drop_none(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested options without the values that are None."""
    kept = {
        name: drop_none(value) if isinstance(value, Mapping) else value for name, value in options.items()
    }
    return {name: value for name, value in kept.items() if value is not None and value != {}}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return two nested mappings as one. Values of `above` have precedence."""
    result = dict(below)
    for name, value in above.items():
        under = result.get(name)
        both = isinstance(value, Mapping) and isinstance(under, Mapping)
        result[name] = merged(cast(Mapping, under), value) if both else value
    return result


def validated(schema: type, values: Any, place: tuple[str, ...]) -> Any:
    """Return an instance of a dataclass; errors name `place` in the configuration.

    Raises:
        ValidationError: a name or a value is wrong.
    """
    try:
        return TypeAdapter(schema).validate_python(values)
    except ValidationError as error:
        details: list[Any] = [
            {"type": d["type"], "loc": (*place, *d["loc"]), "input": d["input"], "ctx": d.get("ctx", {})}
            for d in error.errors()
        ]
        raise ValidationError.from_exception_data(schema.__name__, details) from error


def error_message(error: ValidationError, names: Callable[[list[str]], list[str]]) -> str:
    """Return one sentence about the first error.

    Args:
        names: returns the names of the options at a place, for a hint about a misspelt name.
    """
    # An unknown preset makes `training` invalid too, so `training` comes last.
    first = min(error.errors(), key=lambda each: each["loc"][:1] == ("training",))
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


def option_names(schema: Any) -> list[str]:
    """Return the names of the options of a section."""
    return [field.name for field in fields(schema)] if is_dataclass(schema) else list(schema.model_fields)


def _parsed(text: str, what: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{what}: no YAML{line}; check its indents, quotes and colons.") from error
