"""Scores and gains of a study with their intervals over seeds, as tables and JSON data."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from meduet_training.evaluation.metrics.estimates import Estimate
from meduet_training.evaluation.run_results import STEM
from meduet_training.evaluation.sections import markdown_table, write_json_and_markdown
from meduet_training.studies.label_efficiency.gains import over_seeds, paired_gain
from meduet_training.studies.label_efficiency.subsets import Subset

BOOTSTRAP_SEED = 0
DESCRIPTION = (
    "All runs have the same number of steps. The runs of one seed train on the labels of the same patients "
    "with the same crops. Scores are means over seeds. Gains are differences between runs of one seed. "
    "Intervals are 95 % bootstrap intervals over seeds; they describe other samples of patients and "
    "weights, but not other test patients."
)


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A finished run, and the subsets with its patients."""

    seed: int
    arm: str
    subsets: tuple[Subset, ...]
    num_patients: int
    scores: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Study:
    """The finished runs of a study.

    Attributes:
        about: model, data and options that describe the metrics.
        metrics: names of the compared metrics, the main one first.
        arms: names of the arms; gains are relative to earlier arms.
    """

    about: Mapping[str, Any]
    metrics: tuple[str, ...]
    arms: tuple[str, ...]
    subsets: tuple[Subset, ...]
    runs: tuple[FinishedRun, ...] = ()

    def with_runs(self, more: Iterable[FinishedRun]) -> "Study":
        """Return the study with more runs."""
        return replace(self, runs=(*self.runs, *more))

    def scores(self, subset: Subset, arm: str, metric: str) -> dict[int, float]:
        """Return the scores of the runs, by seed."""
        return {
            run.seed: run.scores[metric]
            for run in self.runs
            if run.arm == arm and subset in run.subsets and metric in run.scores
        }

    def gain(self, subset: Subset, arm: str, other: str, metric: str) -> Estimate | None:
        """Return the gain of an arm over another; None if they have no common seed."""
        own, baseline = (self.scores(subset, each, metric) for each in (arm, other))
        return paired_gain(own, baseline, BOOTSTRAP_SEED)

    def pairs(self) -> list[tuple[str, str]]:
        """Return each arm with each earlier arm; pairs with the first arm are first."""
        return [(arm, other) for other, arm in combinations(self.arms, 2)]

    def patients(self, subset: Subset) -> str:
        """Return the number of patients of a subset, or its range over the seeds."""
        counts = sorted({run.num_patients for run in self.runs if subset in run.subsets})
        return " – ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))) if counts else "–"


def write_study(study: Study, folder: Path) -> None:
    """Write `results.json` and `results.md`, and replace earlier ones."""
    write_json_and_markdown(folder, STEM, as_data(study), as_markdown(study), allow_nan=True)


def as_data(study: Study) -> dict[str, Any]:
    """Return runs, means and gains as JSON types."""
    means, gains = [], []
    for subset in study.subsets:
        for metric in study.metrics:
            labels = {"subset": subset.text, "metric": metric}
            means += [
                labels | {"arm": arm, "seeds": sorted(scores)} | _numbers(over_seeds(scores, BOOTSTRAP_SEED))
                for arm in study.arms
                if (scores := study.scores(subset, arm, metric))
            ]
            gains += [
                labels | {"arm": arm, "over": other} | _numbers(gain)
                for arm, other in study.pairs()
                if (gain := study.gain(subset, arm, other, metric))
            ]
    runs = [asdict(run) | {"subsets": [subset.text for subset in run.subsets]} for run in study.runs]
    return {
        "about": dict(study.about),
        "description": DESCRIPTION,
        "means": means,
        "gains": gains,
        "runs": runs,
    }


def as_markdown(study: Study) -> str:
    """Return the tables of a study as Markdown."""
    metrics = study.metrics
    blocks = ["### Label efficiency", DESCRIPTION, f"Study: {_about(study.about)}"]
    rows = []
    for subset in study.subsets:
        for arm in study.arms:
            scores = [study.scores(subset, arm, metric) for metric in metrics]
            if scores[0]:
                cells = [_cell(over_seeds(each, BOOTSTRAP_SEED)) for each in scores]
                rows.append([subset.name, study.patients(subset), arm, len(scores[0]), *cells])
    blocks += ["**Scores**", markdown_table(("labels", "patients", "arm", "seeds", *metrics), rows)]
    rows = []
    for subset in study.subsets:
        for arm, other in study.pairs():
            gains = [study.gain(subset, arm, other, metric) for metric in metrics]
            if gains[0]:
                cells = [_cell(gain, "+.3f") if gain else None for gain in gains]
                rows.append([subset.name, arm, other, gains[0].num_samples, *cells])
    blocks += ["**Gains**", markdown_table(("labels", "arm", "over", "seeds", *metrics), rows)]
    names = dict.fromkeys(name for run in study.runs for name in run.scores)
    if single := [name for name in names if name not in metrics]:
        rows = [
            [subset.name, name, *[_mean(study.scores(subset, arm, name)) for arm in study.arms]]
            for subset in study.subsets
            for name in single
        ]
        blocks += ["**Classes, means over seeds**", markdown_table(("labels", "class", *study.arms), rows)]
    rows = [
        [
            run.seed,
            ", ".join(subset.name for subset in run.subsets),
            run.num_patients,
            run.arm,
            *[run.scores[name] for name in metrics],
        ]
        for run in sorted(study.runs, key=lambda run: (run.seed, run.num_patients))
    ]
    blocks += ["**Runs**", markdown_table(("seed", "labels", "patients", "arm", *metrics), rows)]
    return "\n\n".join(blocks) + "\n"


def _about(about: Mapping[str, Any]) -> str:
    """Return the description of a study as one line."""
    texts = {name: ", ".join(value) if isinstance(value, list) else value for name, value in about.items()}
    return "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in texts.items()) + "."


def _numbers(estimate: Estimate) -> dict[str, float | int]:
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "num_seeds": estimate.num_patients,
    }


def _cell(estimate: Estimate, form: str = ".3f") -> str:
    """Return a value with its interval, which needs two or more seeds."""
    if estimate.num_patients < 2:
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} ({estimate.low:{form}} – {estimate.high:{form}})"


def _mean(scores: Mapping[int, float]) -> float | None:
    return sum(scores.values()) / len(scores) if scores else None
