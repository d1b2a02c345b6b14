"""Configuration of the training of a segmenter.

    data: {model: MODEL_FOLDER, scans: FOLDER, classes: {lungs: [lung_left, lung_right], heart: [heart]}}

`finetuning/config.py` holds the sections that all fine-tuning tasks share.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import field_validator

from meduet_training.tasks.finetuning.config import FinetuningData, FinetuningRun


class SegmenterData(FinetuningData):
    """Data of a segmenter.

    Attributes:
        names: file with the names of the labels, if the list of scans has none.
        classes: names of the labels that each class joins. None: each label is a class.
        sequences: MR sequences of a patient that the segmenter reads together (M-06).
    """

    names: Path | None = None
    classes: dict[str, tuple[str, ...]] | None = None
    sequences: tuple[str, ...] = ()

    @field_validator("classes", mode="before")
    @classmethod
    def _as_mapping(cls, classes: Any) -> Any:
        """Accept a list of names, and a single name for a class."""
        if isinstance(classes, list):
            return {str(name): (str(name),) for name in classes}
        if isinstance(classes, Mapping):
            return {name: (each,) if isinstance(each, str) else each for name, each in classes.items()}
        return classes


class SegmenterRun(FinetuningRun):
    """Configuration of a segmenter run."""

    data: SegmenterData
