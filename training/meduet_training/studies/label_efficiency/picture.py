"""The picture of a study: scores of all runs with their means, and gains with their intervals."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from meduet_training.reporting.palette import MARKERS, SERIES
from meduet_training.studies.label_efficiency.gains import over_seeds
from meduet_training.studies.label_efficiency.tables import BOOTSTRAP_SEED, Study
from napari_meduet.volumes.files import write_atomically

PICTURE = "label_efficiency.png"
DOTS_PER_INCH = 150
WIDTH, HEIGHT = 1.2, 3.2  # inches of a subset and of a row
ARMS_WIDTH = 0.7  # of the arms of a subset, on the axis


def write_picture(study: Study, folder: Path) -> None:
    """Draw a row for each metric: scores on the left, gains over the first arm on the right."""
    metrics, subsets = study.metrics, study.subsets
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        width = 2 * (WIDTH * max(2, len(subsets)) + 1.6)
        figure = Figure(figsize=(width, HEIGHT * len(metrics) + 0.4), layout="constrained")
        rows = figure.subplots(len(metrics), 2, squeeze=False)
        for (left, right), metric in zip(rows, metrics, strict=True):
            _scores(left, study, metric)
            _gains(right, study, metric)
            for axes in (left, right):
                axes.set_xticks(
                    range(len(subsets)),
                    [f"{subset.name}\npatients: {study.patients(subset)}" for subset in subsets],
                )
                axes.set_xlim(-0.6, len(subsets) - 0.4)
                axes.grid(axis="y", alpha=0.25, linewidth=0.6)
        rows[0, 0].legend(frameon=False, fontsize=8)
        seeds = len({run.seed for run in study.runs})
        figure.suptitle(
            f"{study.about['task']}, {study.about['test_patients']} test patients, model "
            f"{study.about['model_sha256'][:8]}, {seeds} seeds\n"
            "dots: runs; bars: means; lines: runs of one seed; gains with 95 % intervals over seeds",
            fontsize=8,
        )
        with write_atomically(folder / PICTURE, overwrite=True) as temporary:
            figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)


def _scores(axes: Axes, study: Study, metric: str) -> None:
    axes.set_ylabel(f"{metric} on test scans")
    for position, subset in enumerate(study.subsets):
        by_arm = [study.scores(subset, arm, metric) for arm in study.arms]
        x_of_arms = position + _offsets(len(study.arms))
        for seed in by_arm[0]:
            shared = [
                (x, scores[seed]) for x, scores in zip(x_of_arms, by_arm, strict=True) if seed in scores
            ]
            axes.plot(*zip(*shared, strict=True), color="0.75", linewidth=0.7, zorder=1)
        for number, (x, arm, scores) in enumerate(zip(x_of_arms, study.arms, by_arm, strict=True)):
            values = list(scores.values())
            axes.scatter(
                [x] * len(values),
                values,
                s=16,
                color=SERIES[number],
                marker=MARKERS[number],
                zorder=2,
                label=arm if position == 0 else None,
            )
            if values:
                axes.hlines(
                    np.mean(values), x - 0.08, x + 0.08, color=SERIES[number], linewidth=2.2, zorder=3
                )


def _gains(axes: Axes, study: Study, metric: str) -> None:
    first, *others = study.arms
    axes.set_ylabel(f"gain in {metric} over {first}")
    axes.axhline(0, color="0.4", linewidth=0.8)
    for position, subset in enumerate(study.subsets):
        for number, (x, arm) in enumerate(
            zip(position + _offsets(len(others)), others, strict=True), start=1
        ):
            own, baseline = (study.scores(subset, each, metric) for each in (arm, first))
            gains = {seed: own[seed] - baseline[seed] for seed in own if seed in baseline}
            if not gains:
                continue
            mean = over_seeds(gains, BOOTSTRAP_SEED)
            axes.scatter([x - 0.06] * len(gains), list(gains.values()), s=10, color="0.6", zorder=1)
            axes.errorbar(
                x,
                mean.value,
                yerr=[[mean.value - mean.low], [mean.high - mean.value]],
                color=SERIES[number],
                marker=MARKERS[number],
                markersize=5,
                capsize=3,
            )


def _offsets(count: int) -> np.ndarray:
    """Return the positions of the arms around the position of their subset."""
    return (np.arange(count) - (count - 1) / 2) * ARMS_WIDTH / max(count, 1)
