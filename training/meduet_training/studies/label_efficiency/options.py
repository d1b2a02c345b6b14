"""What `meduet-train label-efficiency` was asked for."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meduet_training.studies.label_efficiency.classification import ClassificationBudgets
from meduet_training.studies.label_efficiency.segmentation import SegmentationBudgets
from meduet_training.studies.label_efficiency.task import ARMS, BudgetTask
from meduet_training.tasks.choices import FinetuningTask
from meduet_training.tasks.classifier.task import CLASSIFIER
from meduet_training.tasks.segmenter.task import SEGMENTER
from napari_meduet.errors import InputError


def chosen_arms(words: str) -> list[str]:
    """The arms of `scratch,meduet,meduet+style`, in their order.

    Raises:
        InputError: there is no such arm, or it comes twice.
    """
    arms = [word.strip() for word in words.split(",")]
    for arm in arms:
        if arm not in ARMS:
            close = difflib.get_close_matches(arm, ARMS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(ARMS)}."
            raise InputError(f"--arms: there is no arm {arm or 'without a name'}; {hint}")
    if len(set(arms)) < len(arms):
        raise InputError(f"--arms {words}: each arm once.")
    return arms


def budget_task(
    name: FinetuningTask,
    output: Path,
    config: Path | None,
    options: Mapping[str, Any],
    settings: list[str] | None,
) -> BudgetTask:
    """The task of a study; where nothing is said, that of the study in the folder.

    Raises:
        InputError: the configuration cannot be, nothing can be learnt, or nothing judged.
    """
    if name == "classification":
        return ClassificationBudgets(CLASSIFIER.requested(output, config, options, settings))
    return SegmentationBudgets(SEGMENTER.requested(output, config, options, settings))
