"""What the budgets' runner must know of a task: who can be learnt from, how to train, how it was judged."""

import json
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from meduet_training.evaluation.run_results import RESULTS
from meduet_training.tasks.choices import FinetuningStart, Styles
from meduet_training.tasks.finetuning.config import FinetuningRun
from napari_meduet.errors import InputError

RunT = TypeVar("RunT", bound=FinetuningRun)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way of learning; arms differ in nothing else."""

    start: FinetuningStart
    styles: Styles


ARMS = {
    "scratch": Arm(start="scratch", styles="off"),
    "meduet": Arm(start="meduet", styles="off"),
    "meduet+style": Arm(start="meduet", styles="auto"),
}


class BudgetTask(Protocol):
    """A task on one list of scans, all of it checked.

    Attributes:
        patients: who can be learnt from.
        kinds: the classes; every budget must show all of them.
        of_each: so many patients must show each.
        measures: the scores by which arms are compared, the first above all.
        about: what figures must not be quoted without.
    """

    patients: tuple[str, ...]
    kinds: tuple[str, ...]
    of_each: int
    measures: tuple[str, ...]
    about: dict[str, Any]

    @property
    def base(self) -> FinetuningRun:
        """What all its runs share."""
        ...

    def shown_by(self, patient: str) -> AbstractSet[str]:
        """The kinds in a patient's scans."""
        ...

    def check(self, run: Any) -> None:
        """Refuse a run that cannot be, before any work.

        Raises:
            InputError: with the reason.
        """
        ...

    def train(self, run: Any, folder: Path) -> None:
        """Train, or go on; the folder then holds results."""
        ...

    def scores(self, folder: Path) -> dict[str, float]:
        """How a finished run did on the test scans: its measures, then each class by itself."""
        ...


def run_of(base: RunT, arm: Arm, seed: int, patients: tuple[str, ...] | None) -> RunT:
    """The run of an arm. It never ends early: all arms of a seed take the same steps, from the same crops."""
    changes = {"start": arm.start, "styles": arm.styles, "patience": 0}
    data = base.data.model_copy(update={"patients": patients})
    training = replace(base.training, seed=seed)
    return base.model_copy(update={**changes, "data": data, "training": training})


def check_base(base: FinetuningRun) -> None:
    """Refuse a configuration that says what arms and budgets decide.

    Raises:
        InputError: with the option.
    """
    said = [name for name in ("start", "styles", "patience") if name in base.model_fields_set]
    if base.data.patients is not None:
        said.append("data.patients")
    if said:
        raise InputError(f"{said[0]} is decided by arms and budgets, run by run; leave it out.")


def read_metrics(folder: Path) -> dict[str, float]:
    """The figures of a finished run, by what they measure."""
    metrics = json.loads((folder / RESULTS).read_text(encoding="utf-8"))["metrics"]
    return {metric["name"]: metric["value"] for metric in metrics}
