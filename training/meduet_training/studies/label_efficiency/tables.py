"""What the runs of a study say together: scores and gains with their intervals over seeds, as tables."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from meduet_training.evaluation.metrics.estimates import Estimate
from meduet_training.evaluation.run_results import RESULTS, RESULTS_TABLE
from meduet_training.evaluation.sections import markdown_table
from meduet_training.studies.label_efficiency.gains import over_seeds, paired_gain
from meduet_training.studies.label_efficiency.subsets import Budget
from napari_meduet.volumes.files import write_atomically

BOOTSTRAP_SEED = 0
HOW = (
    "Every run takes the same number of steps; the runs of one seed learn the same patients' labels from the "
    "same crops. Scores are means over seeds, gains the differences of runs of one seed. Intervals are "
    "95 % bootstrap intervals over seeds: they tell what another draw of patients and weights would change, "
    "not what other test patients would."
)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """One run, and the budgets it answers for."""

    seed: int
    arm: str
    budgets: tuple[Budget, ...]
    num_patients: int
    scores: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Runs of some arms at some budgets.

    Attributes:
        about: what figures must not be quoted without.
        measures: the first above all.
        arms: gains are over those before.
    """

    about: Mapping[str, Any]
    measures: tuple[str, ...]
    arms: tuple[str, ...]
    budgets: tuple[Budget, ...]
    runs: tuple[Finished, ...] = ()

    def with_runs(self, more: Iterable[Finished]) -> "Study":
        """The same with more runs."""
        return replace(self, runs=(*self.runs, *more))

    def scores(self, budget: Budget, arm: str, measure: str) -> dict[int, float]:
        """By the seed of their run."""
        return {
            run.seed: run.scores[measure]
            for run in self.runs
            if run.arm == arm and budget in run.budgets and measure in run.scores
        }

    def gain(self, budget: Budget, arm: str, other: str, measure: str) -> Estimate | None:
        """By how much an arm is better than another; None where no seed has both."""
        mine, others = (self.scores(budget, each, measure) for each in (arm, other))
        return paired_gain(mine, others, BOOTSTRAP_SEED)

    def pairs(self) -> list[tuple[str, str]]:
        """Each arm and one before it, gains over the first arm first."""
        return [(arm, other) for other, arm in combinations(self.arms, 2)]

    def patients(self, budget: Budget) -> str:
        """How many were learnt from, over the seeds."""
        counts = sorted({run.num_patients for run in self.runs if budget in run.budgets})
        return " – ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))) if counts else "–"


def write_study(study: Study, folder: Path) -> None:
    """`results.json` and `results.md`, in the place of those before."""
    texts = {RESULTS: json.dumps(as_data(study), indent=2) + "\n", RESULTS_TABLE: as_markdown(study)}
    for name, text in texts.items():
        with write_atomically(folder / name, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")


def as_data(study: Study) -> dict[str, Any]:
    """For programs: every run, and the means and gains."""
    means, gains = [], []
    for budget in study.budgets:
        for measure in study.measures:
            where = {"budget": budget.words, "measure": measure}
            means += [
                where | {"arm": arm, "seeds": sorted(scores)} | _numbers(over_seeds(scores, BOOTSTRAP_SEED))
                for arm in study.arms
                if (scores := study.scores(budget, arm, measure))
            ]
            gains += [
                where | {"arm": arm, "over": other} | _numbers(gain)
                for arm, other in study.pairs()
                if (gain := study.gain(budget, arm, other, measure))
            ]
    runs = [asdict(run) | {"budgets": [budget.words for budget in run.budgets]} for run in study.runs]
    return {"about": dict(study.about), "how": HOW, "means": means, "gains": gains, "runs": runs}


def as_markdown(study: Study) -> str:
    """For people and the terminal."""
    measures = study.measures
    blocks = ["### Few labels", HOW, f"What was run: {_about(study.about)}"]
    rows = []
    for budget in study.budgets:
        for arm in study.arms:
            scores = [study.scores(budget, arm, measure) for measure in measures]
            if scores[0]:
                cells = [_cell(over_seeds(each, BOOTSTRAP_SEED)) for each in scores]
                rows.append([budget.name, study.patients(budget), arm, len(scores[0]), *cells])
    blocks += ["**Scores**", markdown_table(("labels", "patients", "arm", "seeds", *measures), rows)]
    rows = []
    for budget in study.budgets:
        for arm, other in study.pairs():
            gains = [study.gain(budget, arm, other, measure) for measure in measures]
            if gains[0]:
                cells = [_cell(gain, "+.3f") if gain else None for gain in gains]
                rows.append([budget.name, arm, other, gains[0].num_samples, *cells])
    blocks += ["**Gains**", markdown_table(("labels", "arm", "over", "seeds", *measures), rows)]
    names = dict.fromkeys(name for run in study.runs for name in run.scores)
    if single := [name for name in names if name not in measures]:
        rows = [
            [budget.name, name, *[_mean(study.scores(budget, arm, name)) for arm in study.arms]]
            for budget in study.budgets
            for name in single
        ]
        blocks += ["**Classes, means over seeds**", markdown_table(("labels", "class", *study.arms), rows)]
    rows = [
        [
            run.seed,
            ", ".join(budget.name for budget in run.budgets),
            run.num_patients,
            run.arm,
            *[run.scores[name] for name in measures],
        ]
        for run in sorted(study.runs, key=lambda run: (run.seed, run.num_patients))
    ]
    blocks += ["**Runs**", markdown_table(("seed", "labels", "patients", "arm", *measures), rows)]
    return "\n\n".join(blocks) + "\n"


def _about(about: Mapping[str, Any]) -> str:
    """As one line of words."""
    shown = {name: ", ".join(value) if isinstance(value, list) else value for name, value in about.items()}
    return "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in shown.items()) + "."


def _numbers(found: Estimate) -> dict[str, float | int]:
    return {"value": found.value, "low": found.low, "high": found.high, "num_seeds": found.num_patients}


def _cell(found: Estimate, form: str = ".3f") -> str:
    """With its interval, if there are two seeds to draw from."""
    if found.num_patients < 2:
        return f"{found.value:{form}}"
    return f"{found.value:{form}} ({found.low:{form}} – {found.high:{form}})"


def _mean(scores: Mapping[int, float]) -> float | None:
    return sum(scores.values()) / len(scores) if scores else None
