"""All runs of a study: budgets x arms x seeds, each by the common engine in a folder of its own.

A folder is named by seed, number of patients and arm: where two budgets are the same patients, as 10 % and 50
% of two are, one run answers for both. What is finished stays finished, so an interrupted study goes on, and
grows where more seeds, arms or budgets are asked for.
"""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import yaml

from meduet_training.engine.resume import flat
from meduet_training.evaluation.run_results import RESULTS
from meduet_training.runtime.folders import check_writable, make_folder
from meduet_training.runtime.messages import (
    TrainingFailed,
    is_rank_zero,
    print_to_stderr,
    report_on_rank_zero,
)
from meduet_training.studies.label_efficiency.picture import write_picture
from meduet_training.studies.label_efficiency.subsets import Budget, Draw, draw_patients
from meduet_training.studies.label_efficiency.tables import Finished, Study, write_study
from meduet_training.studies.label_efficiency.task import ARMS, BudgetTask, run_of
from meduet_training.tasks.config import CONFIG
from napari_meduet.errors import InputError
from napari_meduet.volumes.files import write_atomically

RUNS = "runs"  # in a study's folder
DECIDED = {"start", "styles", "patience"}  # by arms
FREE = ("hardware.", "trainer.", "data.cache_dir")  # may differ when a study goes on


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One run, and the budgets it answers for."""

    seed: int
    arm: str
    patients: tuple[str, ...]
    budgets: tuple[Budget, ...]

    @property
    def place(self) -> Path:
        """In the study's folder."""
        return Path(RUNS, f"seed-{self.seed}", f"patients-{len(self.patients):04d}", self.arm)


def run_budgets(
    task: BudgetTask, budgets: Sequence[Budget], arms: Sequence[str], num_seeds: int, folder: Path
) -> Study:
    """Train and judge what is not finished yet; tables and picture are written after every run.

    Args:
        arms: names in `ARMS`; gains are over the first.
        num_seeds: the first is that of the configuration.

    Raises:
        InputError: a run cannot be, or the folder holds another study. Nothing was trained.
        Stopped: a signal came; the same call goes on from there.
        Failed: a training cannot go on.
    """
    with report_on_rank_zero():
        for arm in arms:
            task.check(run_of(task.base, ARMS[arm], task.base.training.seed, None))
        planned = planned_runs(task, budgets, arms, num_seeds)
        if is_rank_zero():
            _keep_config(task, folder)
    study = Study(about=task.about, measures=task.measures, arms=tuple(arms), budgets=tuple(budgets))
    waiting = [each for each in planned if not (folder / each.place / RESULTS).is_file()]
    study = study.with_runs(_finished(task, each, folder) for each in planned if each not in waiting)
    for number, each in enumerate(waiting, start=len(planned) - len(waiting) + 1):
        if is_rank_zero():
            patients = f"{len(each.patients)} patient{'s' * (len(each.patients) > 1)}"
            names = " = ".join(budget.name for budget in each.budgets)
            print_to_stderr(
                f"Run {number} of {len(planned)}: seed {each.seed}, {names} ({patients}), {each.arm}."
            )
        run = run_of(task.base, ARMS[each.arm], each.seed, each.patients)
        with redirect_stdout(sys.stderr):  # the study's own table is what was asked for
            task.train(run, folder / each.place)
        if not is_rank_zero():
            continue
        if not (folder / each.place / RESULTS).is_file():
            raise TrainingFailed(f"{each.place}: the run measured nothing on the test scans.")
        study = study.with_runs([_finished(task, each, folder)])
        write_study(study, folder)
        write_picture(study, folder)
    if is_rank_zero() and not waiting:
        write_study(study, folder)
        write_picture(study, folder)
    return study


def planned_runs(
    task: BudgetTask, budgets: Sequence[Budget], arms: Sequence[str], num_seeds: int
) -> list[Planned]:
    """Seed by seed, small budgets first, so that what is finished can be compared.

    Raises:
        InputError: the patients do not show all classes.
    """
    planned = []
    first = task.base.training.seed
    for seed in range(first, first + num_seeds):
        draw = draw_patients(task.patients, task.kinds, task.shown_by, seed, task.of_each)
        for patients, same in _alike(draw, budgets).items():
            planned += [Planned(seed=seed, arm=arm, patients=patients, budgets=same) for arm in arms]
    return planned


def _alike(draw: Draw, budgets: Sequence[Budget]) -> dict[tuple[str, ...], tuple[Budget, ...]]:
    """The budgets of each set of patients."""
    found: dict[tuple[str, ...], tuple[Budget, ...]] = {}
    for budget in budgets:
        patients = draw.of(budget)
        found[patients] = (*found.get(patients, ()), budget)
    return found


def _finished(task: BudgetTask, planned: Planned, folder: Path) -> Finished:
    return Finished(
        seed=planned.seed,
        arm=planned.arm,
        budgets=planned.budgets,
        num_patients=len(planned.patients),
        scores=task.scores(folder / planned.place),
    )


def _keep_config(task: BudgetTask, folder: Path) -> None:
    """Keep in the folder what all runs share, or find the same there.

    Raises:
        InputError: the folder holds another study, with what differs.
    """
    make_folder(folder)
    check_writable(folder)
    words = task.base.model_dump(mode="json", exclude_none=True, exclude=DECIDED)
    path = folder / CONFIG
    if path.is_file():
        now, before = flat(words), flat(yaml.safe_load(path.read_text(encoding="utf-8")))
        differing = sorted(name for name in now | before if now.get(name) != before.get(name))
        if differing := [name for name in differing if not name.startswith(FREE)]:
            raise InputError(
                f"{folder.name}: holds the runs of another study, which differs in {', '.join(differing)}; "
                "give another output folder."
            )
        return
    with write_atomically(path, overwrite=True) as temporary:
        temporary.write_text(yaml.safe_dump(words, sort_keys=False), encoding="utf-8")
