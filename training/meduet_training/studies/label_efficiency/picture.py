"""The scores of a study at a glance: a dot for each run, the mean, and the gains with their intervals."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from meduet_training.reporting.palette import MARKERS, SERIES
from meduet_training.studies.label_efficiency.gains import over_seeds
from meduet_training.studies.label_efficiency.tables import BOOTSTRAP_SEED, Study
from napari_meduet.volumes.files import write_atomically

PICTURE = "few_labels.png"
DOTS_PER_INCH = 150
WIDTH, HEIGHT = 1.2, 3.2  # inches: of a budget's arms, of a row
SPREAD = 0.7  # of a budget's place, for its arms


def write_picture(study: Study, folder: Path) -> None:
    """A row for each measure: scores on the left, gains over the first arm on the right."""
    measures, budgets = study.measures, study.budgets
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        width = 2 * (WIDTH * max(2, len(budgets)) + 1.6)
        figure = Figure(figsize=(width, HEIGHT * len(measures) + 0.4), layout="constrained")
        rows = figure.subplots(len(measures), 2, squeeze=False)
        for (left, right), measure in zip(rows, measures, strict=True):
            _scores(left, study, measure)
            _gains(right, study, measure)
            for axes in (left, right):
                axes.set_xticks(
                    range(len(budgets)),
                    [f"{budget.name}\npatients: {study.patients(budget)}" for budget in budgets],
                )
                axes.set_xlim(-0.6, len(budgets) - 0.4)
                axes.grid(axis="y", alpha=0.25, linewidth=0.6)
        rows[0, 0].legend(frameon=False, fontsize=8)
        seeds = len({run.seed for run in study.runs})
        figure.suptitle(
            f"{study.about['task']}, {study.about['test_patients']} test patients, model "
            f"{study.about['model_sha256'][:8]}, {seeds} seeds\n"
            "dots: runs; bars: their means; lines: runs of one seed; gains with 95 % intervals over seeds",
            fontsize=8,
        )
        with write_atomically(folder / PICTURE, overwrite=True) as temporary:
            figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)


def _scores(axes: Axes, study: Study, measure: str) -> None:
    axes.set_ylabel(f"{measure} on test scans")
    for place, budget in enumerate(study.budgets):
        by_arm = [study.scores(budget, arm, measure) for arm in study.arms]
        at = place + _places(len(study.arms))
        for seed in by_arm[0]:
            shared = [(x, scores[seed]) for x, scores in zip(at, by_arm, strict=True) if seed in scores]
            axes.plot(*zip(*shared, strict=True), color="0.75", linewidth=0.7, zorder=1)
        for number, (x, arm, scores) in enumerate(zip(at, study.arms, by_arm, strict=True)):
            values = list(scores.values())
            axes.scatter(
                [x] * len(values),
                values,
                s=16,
                color=SERIES[number],
                marker=MARKERS[number],
                zorder=2,
                label=arm if place == 0 else None,
            )
            if values:
                axes.hlines(
                    np.mean(values), x - 0.08, x + 0.08, color=SERIES[number], linewidth=2.2, zorder=3
                )


def _gains(axes: Axes, study: Study, measure: str) -> None:
    first, *others = study.arms
    axes.set_ylabel(f"gain in {measure} over {first}")
    axes.axhline(0, color="0.4", linewidth=0.8)
    for place, budget in enumerate(study.budgets):
        for number, (x, arm) in enumerate(zip(place + _places(len(others)), others, strict=True), start=1):
            mine, theirs = (study.scores(budget, each, measure) for each in (arm, first))
            gains = {seed: mine[seed] - theirs[seed] for seed in mine if seed in theirs}
            if not gains:
                continue
            found = over_seeds(gains, BOOTSTRAP_SEED)
            axes.scatter([x - 0.06] * len(gains), list(gains.values()), s=10, color="0.6", zorder=1)
            axes.errorbar(
                x,
                found.value,
                yerr=[[found.value - found.low], [found.high - found.value]],
                color=SERIES[number],
                marker=MARKERS[number],
                markersize=5,
                capsize=3,
            )


def _places(count: int) -> np.ndarray:
    """Around 0."""
    return (np.arange(count) - (count - 1) / 2) * SPREAD / max(count, 1)
