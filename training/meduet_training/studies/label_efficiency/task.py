"""What a label-efficiency study needs from a task: patients, classes, training and scores."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from meduet_training.tasks.choices import FinetuningStart, Styles
from meduet_training.tasks.finetuning.config import FinetuningRun
from napari_meduet.errors import InputError

RunT = TypeVar("RunT", bound=FinetuningRun)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way of training; all arms have the same other options."""

    start: FinetuningStart
    styles: Styles


ARMS = {
    "scratch": Arm(start="scratch", styles="off"),
    "meduet": Arm(start="meduet", styles="off"),
    "meduet+style": Arm(start="meduet", styles="auto"),
}


class StudyTask(Protocol):
    """A task on one list of scans, which has been checked.

    Attributes:
        patients: patients with labels for training.
        classes: classes that every subset must have.
        patients_per_class: number of patients that each class needs.
        metrics: names of the compared metrics, the main one first.
        about: model, data and options that describe the metrics.
    """

    patients: tuple[str, ...]
    classes: tuple[str, ...]
    patients_per_class: int
    metrics: tuple[str, ...]
    about: dict[str, Any]

    @property
    def base(self) -> FinetuningRun:
        """Configuration that all runs share."""
        ...

    def classes_of(self, patient: str) -> AbstractSet[str]:
        """Return the classes in the scans of a patient."""
        ...

    def check(self, run: Any) -> None:
        """Check that a run can be trained, before any training starts.

        Raises:
            InputError: the run cannot be trained.
        """
        ...

    def train(self, run: Any, folder: Path) -> None:
        """Train a run, or resume it, and write its results into the folder."""
        ...

    def scores(self, folder: Path) -> dict[str, float]:
        """Return the scores of a finished run on the test scans: the metrics, then those of each class."""
        ...


def arm_run(base: RunT, arm: Arm, seed: int, patients: tuple[str, ...] | None) -> RunT:
    """Return the run of an arm.

    It has no early stopping, so all arms of a seed have the same steps with the same crops.
    """
    changes = {"start": arm.start, "styles": arm.styles, "patience": 0}
    data = base.data.model_copy(update={"patients": patients})
    training = replace(base.training, seed=seed)
    return base.model_copy(update={**changes, "data": data, "training": training})


def check_base(base: FinetuningRun) -> None:
    """Check that a configuration leaves out the options that arms and subsets set.

    Raises:
        InputError: the configuration has such an option.
    """
    fixed = [name for name in ("start", "styles", "patience") if name in base.model_fields_set]
    if base.data.patients is not None:
        fixed.append("data.patients")
    if fixed:
        raise InputError(
            f"{fixed[0]} is set by the arms and subsets of the study. Leave it out of the configuration."
        )
