"""What the training of a segmenter was asked to do: one YAML file, with the command line over it.

    data: {model: MODEL_FOLDER, scans: FOLDER, classes: {lungs: [lung_left, lung_right], heart: [heart]}}

The rest is that of every fine-tuning (finetuning/config.py).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, field_validator, with_config

from meduet_training.tasks.config import SECTIONS, option_names, read_config
from meduet_training.tasks.finetuning.config import FinetuningData, FinetuningRun, finetuning_of
from meduet_training.tasks.finetuning.objectives import SegmentationConfig
from meduet_training.tasks.segmenter.presets import PRESETS
from napari_meduet.core.analysis.unetr import UNETRConfig

for _schema in (UNETRConfig, SegmentationConfig):
    with_config(ConfigDict(extra="forbid"))(_schema)


class SegmenterData(FinetuningData):
    """What a segmenter learns from.

    Attributes:
        names: a file that names the labels, where the list of scans does not.
        classes: the names of labels that each class joins; None: each name is a class.
        sequences: MR sequences of a patient that are seen together (M-06).
    """

    names: Path | None = None
    classes: dict[str, tuple[str, ...]] | None = None
    sequences: tuple[str, ...] = ()

    @field_validator("classes", mode="before")
    @classmethod
    def _of_names(cls, said: Any) -> Any:
        """Names alone are classes of one name."""
        if isinstance(said, list):
            return {str(name): (str(name),) for name in said}
        if isinstance(said, Mapping):
            return {name: (each,) if isinstance(each, str) else each for name, each in said.items()}
        return said


class SegmenterRun(FinetuningRun):
    """A whole run of a segmenter."""

    data: SegmenterData


def read_segmenter_run(path: Path | None, changes: Mapping[str, Any]) -> SegmenterRun:
    """A file's configuration, if any, with changes over it, nested as the file is.

    Raises:
        InputError: there is no such file, it is no YAML, or names or values in it cannot be.
    """
    return read_config(path, changes, _whole, _names)


def _whole(said: Mapping[str, Any]) -> SegmenterRun:
    training = finetuning_of(said, PRESETS, SegmentationConfig, UNETRConfig)
    return SegmenterRun.model_validate({**said, "training": training})


def _names(place: list[str], said: Mapping[str, Any]) -> list[str]:
    """The options there are at a place."""
    schemas: dict[tuple[str, ...], Any] = {
        (): SegmenterRun,
        ("data",): SegmenterData,
        ("training", "objective"): SegmentationConfig,
        ("training", "network"): UNETRConfig,
    }
    return option_names(schemas.get(tuple(place)) or SECTIONS[place[0]])
