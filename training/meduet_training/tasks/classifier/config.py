"""What the training of a classifier was asked to do: one YAML file, with the command line over it.

    data: {model: MODEL_FOLDER, scans: manifest.csv, target: diagnosis, classes: [benign, malignant]}

The rest is that of every fine-tuning (finetuning/config.py).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, with_config

from meduet_training.tasks.classifier.presets import PRESETS
from meduet_training.tasks.config import SECTIONS, option_names, read_config
from meduet_training.tasks.finetuning.config import FinetuningData, FinetuningRun, finetuning_of
from meduet_training.tasks.finetuning.objectives import ClassificationConfig
from napari_meduet.core.analysis.classifier import ClassifierConfig

for _schema in (ClassifierConfig, ClassificationConfig):
    with_config(ConfigDict(extra="forbid"))(_schema)


class ClassifierData(FinetuningData):
    """What a classifier learns from.

    Attributes:
        target: the column of the list of scans that holds the class of each; or domain, modality, sequence.
        classes: these alone; none: all that there are.
    """

    cache_dir: Path = Path("caches/factors")
    target: str = Field(min_length=1)
    classes: tuple[str, ...] = ()


class ClassifierRun(FinetuningRun):
    """A whole run of a classifier."""

    data: ClassifierData


def read_classifier_run(path: Path | None, changes: Mapping[str, Any]) -> ClassifierRun:
    """A file's configuration, if any, with changes over it, nested as the file is.

    Raises:
        InputError: there is no such file, it is no YAML, or names or values in it cannot be.
    """
    return read_config(path, changes, _whole, _names)


def _whole(said: Mapping[str, Any]) -> ClassifierRun:
    training = finetuning_of(said, PRESETS, ClassificationConfig, ClassifierConfig)
    return ClassifierRun.model_validate({**said, "training": training})


def _names(place: list[str], said: Mapping[str, Any]) -> list[str]:
    """The options there are at a place."""
    schemas: dict[tuple[str, ...], Any] = {
        (): ClassifierRun,
        ("data",): ClassifierData,
        ("training", "objective"): ClassificationConfig,
        ("training", "network"): ClassifierConfig,
    }
    return option_names(schemas.get(tuple(place)) or SECTIONS[place[0]])
