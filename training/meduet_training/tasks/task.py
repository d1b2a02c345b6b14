"""The declaration of a task: its configuration, its presets, and the export of its weights.

The `task.py` of each task folder declares one `Task`. This file reads the configuration of any task from a
file and options, and finds the weights of a finished or interrupted run for its export.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, Generic, Literal, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, ValidationError, with_config
from torch import Tensor

from meduet_training.engine.best_weights import read_best
from meduet_training.engine.checkpoints import Checkpoint
from meduet_training.engine.config import TrainingConfig
from meduet_training.engine.resume import NETWORK, RunSettings, checkpoint_of, settings_of
from meduet_training.tasks.config import (
    CONFIG,
    RunConfig,
    drop_none,
    error_message,
    merged,
    option_names,
    parse_settings,
    read_yaml,
    validated,
)
from napari_meduet.errors import InputError
from napari_meduet.models.configs import with_tuples
from napari_meduet.models.loading import load_model

RunT = TypeVar("RunT", bound=RunConfig)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedWeights:
    """Weights of a run, for its export.

    Attributes:
        settings, checkpoint: the settings of the run, and its newest checkpoint.
        network: configuration of the network.
        tensors: the averaged weights, by name: those of the best validation, or the newest.
        step: number of steps after which these weights were taken.
        score: validation score of these weights; None if there was no validation.
    """

    settings: RunSettings
    checkpoint: Checkpoint
    network: Any
    tensors: dict[str, Tensor]
    step: int
    score: float | None

    @property
    def objective(self) -> dict[str, Any]:
        """Configuration of the objective, as plain data."""
        return self.settings.training["objective"]

    @property
    def total_steps(self) -> int:
        return self.objective["total_steps"]

    def history(self, **scores: float | None) -> dict[str, Any]:
        """Return how the weights were trained, for the model card."""
        return {
            "training": self.settings.training,
            "steps_taken": self.step,
            **scores,
            "domains": self.settings.domains,
        }


@dataclass(frozen=True, kw_only=True)
class Task(Generic[RunT]):
    """Declaration of a task.

    Attributes:
        name: a noun for messages, such as "segmenter".
        run: schema of the configuration of a run.
        presets: functions that return the training of each preset; `tiny` is the default.
        objective, network: schemas of these two parts of `training`.
        weights: which weights are exported, those of the best validation or the newest.
        reads: what the network reads from a model. The export refuses another model than that of the run.
            None: `save` checks the model.
        save: writes the weights of a run into a model folder. None: the task has an export of its own.
    """

    name: str
    run: type[RunT]
    presets: Mapping[str, Callable[[], TrainingConfig]]
    objective: type
    network: type
    weights: Literal["best", "newest"] = "newest"
    reads: Literal["latents", "factors"] | None = None
    save: Callable[[Path, TrainedWeights], None] | None = None

    def __post_init__(self) -> None:
        for schema in (self.objective, self.network):
            with_config(ConfigDict(extra="forbid"))(schema)

    def start(self, request: Mapping[str, Any]) -> TrainingConfig | None:
        """Return the training that a request starts from; None if the schema will refuse the request."""
        preset = self.presets.get(str(request.get("preset", "tiny")))
        return preset() if preset else None

    def read(self, path: Path | None, overrides: Mapping[str, Any]) -> RunT:
        """Return the configuration in a file, if one is given, with overrides that are nested like the file.

        Raises:
            InputError: the file cannot be read, or a name or a value is wrong.
        """
        request = merged(read_yaml(path), overrides) if path else dict(overrides)
        try:
            return self.run.model_validate({**request, "training": self._training(request)})
        except ValidationError as error:
            where = f"{path.name}: " if path else ""
            message = error_message(error, lambda place: self._names(place, request))
            raise InputError(where + message) from error

    def requested(
        self, output: Path, config: Path | None, options: Mapping[str, Any], settings: list[str] | None
    ) -> RunT:
        """Return the configuration of a command: a file, options over it, and `--set` over both.

        If neither a file nor data are given, the file is that of the run in the output folder.

        Args:
            options: nested like the file; None for an option that was not given.

        Raises:
            InputError: the file cannot be read, or a name or a value is wrong.
        """
        has_data = any(value for name, value in options["data"].items() if name != "cache_dir")
        if not config and not has_data and (output / CONFIG).is_file():
            config = output / CONFIG
        return self.read(config, merged(drop_none(options), parse_settings(settings or [])))

    def trained(self, run_folder: Path) -> TrainedWeights:
        """Return the weights of a run of this task, finished or not.

        Raises:
            InputError: the folder holds no checkpoint, or a run of another task.
        """
        checkpoint = checkpoint_of(run_folder)
        settings = settings_of(checkpoint)
        network, objective = settings.training["network"], settings.training["objective"]
        if _names_of(self.network) != set(network) or _names_of(self.objective) != set(objective):
            raise InputError(
                f"{checkpoint.path.name}: holds no {self.name}. It was trained by another task, which has "
                "its own export, or by another version of this program."
            )
        best = read_best(run_folder) if self.weights == "best" else None
        return TrainedWeights(
            settings=settings,
            checkpoint=checkpoint,
            network=self.network(**with_tuples(network)),
            tensors=best.tensors if best else checkpoint.under(f"{NETWORK}teacher."),
            step=best.step if best else checkpoint.step,
            score=best.score if best else None,
        )

    def export(self, run_folder: Path, model_folder: Path) -> TrainedWeights:
        """Write the weights of a run into the model that it was trained with, and return them.

        Raises:
            InputError: the folder holds no run of this task, or the model is another. Nothing was changed.
        """
        assert self.save is not None, f"the {self.name} has an export of its own"
        trained = self.trained(run_folder)
        if self.reads is not None:
            model, expected = load_model(model_folder, "cpu"), trained.settings.training["model_sha256"]
            if expected != model.sha256:
                raise InputError(
                    f"{model_folder.name}: this {self.name} reads the {self.reads} of another model "
                    f"({str(expected)[:8]}, not {model.sha256[:8]}). Give the folder of that model."
                )
        self.save(model_folder, trained)
        return trained

    def _training(self, request: Mapping[str, Any]) -> Any:
        """Return the preset's training with the changes of a request. The schema refuses wrong values."""
        changes, start = request.get("training", {}), self.start(request)
        if start is None or not isinstance(changes, Mapping):
            return changes
        values = merged(asdict(start), changes)
        for part in ("objective", "network"):
            values[part] = validated(type(getattr(start, part)), values[part], ("training", part))
        return values

    def _names(self, place: list[str], request: Mapping[str, Any]) -> list[str]:
        """Return the names of the options at a place of the configuration."""
        schema: Any = self.run
        if place[:1] == ["training"] and len(place) > 1:  # objective or network, which depend on the request
            schema, place = type(getattr(self.start(request), place[1])), place[2:]
        for name in place:
            schema = _section(schema, name)
        return option_names(schema)


def _section(schema: Any, name: str) -> Any:
    """Return the schema of a section; that of `Section | None` is Section."""
    annotation = get_type_hints(schema)[name]
    return next((each for each in get_args(annotation) if each is not NoneType), annotation)


def _names_of(schema: Any) -> set[str]:
    return {field.name for field in fields(schema)}
