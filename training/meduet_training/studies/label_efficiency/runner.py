"""All runs of a study: every combination of subset, arm and seed, each in its own folder.

A folder is named by seed, number of patients and arm. Subsets with the same patients, such as 10 % and 50 %
of two patients, share one run. Finished runs are kept, so an interrupted study resumes, and a study can be
extended with more seeds, arms or subsets.
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
from meduet_training.studies.label_efficiency.subsets import NestedSubsets, Subset, sample_subsets
from meduet_training.studies.label_efficiency.tables import FinishedRun, Study, write_study
from meduet_training.studies.label_efficiency.task import ARMS, StudyTask, arm_run
from meduet_training.tasks.config import CONFIG
from napari_meduet.errors import InputError
from napari_meduet.volumes.files import write_atomically

RUNS = "runs"  # folder of the runs, in the folder of the study
SET_BY_ARM = {"start", "styles", "patience"}
FREE = ("hardware.", "trainer.", "data.cache_dir")  # may differ when a study resumes


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run, and the subsets with its patients."""

    seed: int
    arm: str
    patients: tuple[str, ...]
    subsets: tuple[Subset, ...]

    @property
    def folder(self) -> Path:
        """Folder of the run, relative to that of the study."""
        return Path(RUNS, f"seed-{self.seed}", f"patients-{len(self.patients):04d}", self.arm)


def run_study(
    task: StudyTask, subsets: Sequence[Subset], arms: Sequence[str], num_seeds: int, folder: Path
) -> Study:
    """Train and test all unfinished runs; tables and picture are written after every run.

    Args:
        arms: names in `ARMS`; gains are relative to the first.
        num_seeds: number of seeds, counted from the seed of the configuration.

    Raises:
        InputError: a run cannot be trained, or the folder holds another study. Nothing was trained.
        Stopped: a signal stopped the study; the same call resumes it.
        Failed: a training failed.
    """
    with report_on_rank_zero():
        for arm in arms:
            task.check(arm_run(task.base, ARMS[arm], task.base.training.seed, None))
        planned = plan_runs(task, subsets, arms, num_seeds)
        if is_rank_zero():
            _keep_config(task, folder)
    study = Study(about=task.about, metrics=task.metrics, arms=tuple(arms), subsets=tuple(subsets))
    unfinished = [each for each in planned if not (folder / each.folder / RESULTS).is_file()]
    study = study.with_runs(_finished(task, each, folder) for each in planned if each not in unfinished)
    for number, each in enumerate(unfinished, start=len(planned) - len(unfinished) + 1):
        if is_rank_zero():
            patients = f"{len(each.patients)} patient{'s' * (len(each.patients) > 1)}"
            names = " = ".join(subset.name for subset in each.subsets)
            print_to_stderr(
                f"Run {number} of {len(planned)}: seed {each.seed}, {names} ({patients}), {each.arm}."
            )
        run = arm_run(task.base, ARMS[each.arm], each.seed, each.patients)
        with redirect_stdout(sys.stderr):  # stdout is for the table of the study
            task.train(run, folder / each.folder)
        if not is_rank_zero():
            continue
        if not (folder / each.folder / RESULTS).is_file():
            raise TrainingFailed(f"{each.folder}: the run has no results on the test scans.")
        study = study.with_runs([_finished(task, each, folder)])
        write_study(study, folder)
        write_picture(study, folder)
    if is_rank_zero() and not unfinished:
        write_study(study, folder)
        write_picture(study, folder)
    return study


def plan_runs(
    task: StudyTask, subsets: Sequence[Subset], arms: Sequence[str], num_seeds: int
) -> list[PlannedRun]:
    """Return the runs, seed by seed and small subsets first, so that early results can be compared.

    Raises:
        InputError: the scans of the patients do not have all classes.
    """
    planned = []
    first = task.base.training.seed
    for seed in range(first, first + num_seeds):
        nested = sample_subsets(task.patients, task.classes, task.classes_of, seed, task.patients_per_class)
        for patients, same in _subsets_by_patients(nested, subsets).items():
            planned += [PlannedRun(seed=seed, arm=arm, patients=patients, subsets=same) for arm in arms]
    return planned


def _subsets_by_patients(
    nested: NestedSubsets, subsets: Sequence[Subset]
) -> dict[tuple[str, ...], tuple[Subset, ...]]:
    """Return the subsets of each set of patients."""
    subsets_of: dict[tuple[str, ...], tuple[Subset, ...]] = {}
    for subset in subsets:
        patients = nested.of(subset)
        subsets_of[patients] = (*subsets_of.get(patients, ()), subset)
    return subsets_of


def _finished(task: StudyTask, planned: PlannedRun, folder: Path) -> FinishedRun:
    return FinishedRun(
        seed=planned.seed,
        arm=planned.arm,
        subsets=planned.subsets,
        num_patients=len(planned.patients),
        scores=task.scores(folder / planned.folder),
    )


def _keep_config(task: StudyTask, folder: Path) -> None:
    """Write the shared configuration of all runs, or check that the folder holds the same one.

    Raises:
        InputError: the folder holds another study.
    """
    make_folder(folder)
    check_writable(folder)
    config = task.base.model_dump(mode="json", exclude_none=True, exclude=SET_BY_ARM)
    path = folder / CONFIG
    if path.is_file():
        now, before = flat(config), flat(yaml.safe_load(path.read_text(encoding="utf-8")))
        differing = sorted(name for name in now | before if now.get(name) != before.get(name))
        if differing := [name for name in differing if not name.startswith(FREE)]:
            raise InputError(
                f"{folder.name}: this folder holds another study, which differs in {', '.join(differing)}. "
                "Give another output folder."
            )
        return
    with write_atomically(path, overwrite=True) as temporary:
        temporary.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
