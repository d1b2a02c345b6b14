"""The options of `meduet-train label-efficiency`."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meduet_training.studies.label_efficiency.classification import ClassificationStudy
from meduet_training.studies.label_efficiency.segmentation import SegmentationStudy
from meduet_training.studies.label_efficiency.task import ARMS, StudyTask
from meduet_training.tasks.choices import FinetuningTask
from meduet_training.tasks.classifier.task import CLASSIFIER
from meduet_training.tasks.segmenter.task import SEGMENTER
from napari_meduet.errors import InputError


def parse_arms(text: str) -> list[str]:
    """Parse the names of arms, such as `scratch,meduet,meduet+style`.

    Raises:
        InputError: an arm does not exist, or is repeated.
    """
    arms = [name.strip() for name in text.split(",")]
    for arm in arms:
        if arm not in ARMS:
            close = difflib.get_close_matches(arm, ARMS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(ARMS)}."
            raise InputError(f"--arms: unknown arm {arm!r}; {hint}")
    if len(set(arms)) < len(arms):
        raise InputError(f"--arms {text}: an arm is repeated. Name each arm once.")
    return arms


def study_task(
    name: FinetuningTask,
    output: Path,
    config: Path | None,
    options: Mapping[str, Any],
    settings: list[str] | None,
) -> StudyTask:
    """Return the task of a study; without options, that of the study in the output folder.

    Raises:
        InputError: the configuration is not valid, or there are no scans to train or to test on.
    """
    if name == "classification":
        return ClassificationStudy(CLASSIFIER.requested(output, config, options, settings))
    return SegmentationStudy(SEGMENTER.requested(output, config, options, settings))
