"""The report of a run: one HTML page that needs no other file and no network.

It is made from the files in the folder of the run (card, logs, panels, factors). It can be made again at any
time, also for a run that is running or was killed. Missing parts are named on the page.
"""

import base64
import csv
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from meduet_training.engine.resume import flat
from meduet_training.evaluation.factors.analysis import FACTORS_CSV, FACTORS_JSON
from meduet_training.evaluation.run_results import RESULTS
from meduet_training.reporting.card import CARD, RunCard, read_run_card
from meduet_training.reporting.charts import Band, bands, curve, factor_map, map_legend
from meduet_training.runtime.progress import LOG
from meduet_training.runtime.row_log import read_rows
from napari_meduet.errors import InputError
from napari_meduet.volumes.files import write_atomically

REPORT, VALIDATION, PANELS, FACTORS = "report.html", "validation.jsonl", "panels", "factors"
TEMPLATE = "report.html.jinja"
PANEL = re.compile(r"step-(\d+)-(\w+)\.png")
FACTOR_NAMES = {"style": "style s₀", "content": "content c₀"}
LOSS, FEATURES = "loss/", "features/"
OPTIMISATION = {"optimizer/learning_rate": "learning rate", "optimizer/gradient_norm": "gradient norm"}
TIMING = {
    "time/step_seconds": "step time, s",
    "time/data_wait_seconds": "waiting for data, s",
    "time/samples_per_second": "samples per second",
}
WAITING = "of a step waiting for data"
WARMUP_ROWS = 1  # left out of the timing, because the first steps compile


@dataclass(frozen=True)
class Panel:
    """One panel on the page.

    Attributes:
        source: a data URL.
        is_open: whether the panel is visible when the page opens.
    """

    title: str
    source: str
    is_open: bool


def write_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a run, and return its path.

    Raises:
        InputError: the folder holds no run, or cannot be written.
    """
    card = read_run_card(folder)
    rows, validation = read_rows(folder / LOG), read_rows(folder / VALIDATION)
    factors = _json(folder, f"{FACTORS}/{FACTORS_JSON}")
    environment = Environment(
        loader=PackageLoader("meduet_training", "reporting"), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template(TEMPLATE).render(
        card=card,
        state=_state(card),
        settings=sorted(flat(card.config).items()),
        hours=_hours(card),
        key_metrics=_key_metrics(card, rows, factors or _last_with_factors(validation)),
        losses=_curves(rows, {name: name.removeprefix(LOSS) for name in _names(rows, LOSS)}),
        optimisation=_curves(
            rows,
            OPTIMISATION
            | {name: f"norm of {name.removeprefix(FEATURES)}" for name in _names(rows, FEATURES)},
        ),
        timing=_curves(rows, TIMING),
        timing_table=_timing(rows) + _validation_time(validation),
        panels=_panels(folder / PANELS),
        probe_chart=_probe_chart(validation),
        reconstruction=_curves(
            validation, {"reconstruction": "reconstruction error of the validation crops"}
        ),
        validation_curves=_validation_charts(validation),
        results=_json(folder, RESULTS),
        factors=factors,
        factor_rows=_factor_rows(factors),
        maps=_maps(folder / FACTORS / FACTORS_CSV),
        card_name=CARD,
    )
    with write_atomically(folder / REPORT, overwrite=True) as temporary:
        temporary.write_text(page, "utf-8")
    return folder / REPORT


def _state(card: RunCard) -> str:
    """Return the state of the run as a sentence."""
    state = {
        "running": "running, or killed",
        "finished": "finished",
        "stopped": "stopped on request; the same command resumes it",
        "failed": f"stopped by an error ({card.failure}); the same command resumes it",
    }[card.status]
    resumed = {0: "never resumed", 1: "resumed once"}.get(card.resumed, f"resumed {card.resumed} times")
    return f"{card.steps_done} of {card.total_steps} steps, {resumed}: {state}."


def _hours(card: RunCard) -> float:
    """Return the total time of the sessions that ended."""
    seconds = [
        (datetime.fromisoformat(each.ended) - datetime.fromisoformat(each.started)).total_seconds()
        for each in card.sessions
        if each.ended is not None
    ]
    return sum(seconds) / 3600


def _names(rows: Sequence[Mapping[str, Any]], prefix: str) -> list[str]:
    """Return the logged quantities with a prefix, the total loss first."""
    names = {name for row in rows for name in row if name.startswith(prefix)}
    return sorted(names, key=lambda name: (not name.endswith("/total"), name))


def _curves(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> list[Markup]:
    """Return a chart of each quantity with a logged value."""
    charts = []
    for name, title in titles.items():
        points = [(row["step"], row[name]) for row in rows if name in row]
        if any(value is not None for _, value in points):
            steps, values = zip(*points, strict=True)
            charts.append(Markup(curve(title, steps, values)))  # noqa: S704 - made by charts.py
    return charts


def _validation_charts(validation: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """Return charts of the validation metrics of a network without factors."""
    titles = {
        "loss": "loss of the validation crops",
        "dice": "mean Dice of the validation crops",
        "balanced_accuracy": "balanced accuracy of the validation scans",
    }
    classes = {name for row in validation for name in row.get("classes", {})}
    flat_rows = [
        {**row, **{f"Dice of {name}": dice for name, dice in row.get("classes", {}).items()}}
        for row in validation
    ]
    return _curves(flat_rows, titles | {f"Dice of {name}": f"Dice of {name}" for name in sorted(classes)})


def _timing(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the medians of the step times, without the first rows."""
    steady = rows[WARMUP_ROWS:]
    medians = {
        name: statistics.median(values)
        for name in TIMING
        if (values := [row[name] for row in steady if row.get(name) is not None])
    }
    table = [(f"median {title}", number(medians[name])) for name, title in TIMING.items() if name in medians]
    if medians.get("time/step_seconds"):
        fraction = medians["time/data_wait_seconds"] / medians["time/step_seconds"]
        table.append((WAITING, f"{fraction:.1%}"))
    return table


def _validation_time(validation: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the total time of the validations, which is not part of the step times."""
    seconds = [row["seconds"] for row in validation]
    if not seconds:
        return []
    return [(f"{len(seconds)} validations with their panels, s", number(sum(seconds)))]


def _key_metrics(
    card: RunCard, rows: Sequence[Mapping[str, Any]], measured: Mapping[str, Any] | None
) -> list[tuple[str, str, str]]:
    """Return name, value and comparison of the numbers at the top of the page."""
    key_metrics = [("steps", f"{card.steps_done:,}", f"of {card.total_steps:,}")]
    if rows and rows[-1].get(f"{LOSS}total") is not None:
        key_metrics.append(("loss", number(rows[-1][f"{LOSS}total"]), f"at step {rows[-1]['step']:,}"))
    for factor, title in FACTOR_NAMES.items():
        probe = measured["factors"][factor]["probe"] if measured else None
        if probe:
            accuracy = probe["accuracy"]
            interval = f"{number(accuracy['low'])} to {number(accuracy['high'])}"
            key_metrics.append(
                (f"domain read from {title}", number(accuracy["value"]), f"{interval}; {_baselines(probe)}")
            )
    timing = dict(_timing(rows))
    if waiting := timing.get(WAITING):
        key_metrics.append(("time of a step", f"{timing['median step time, s']} s", f"{waiting} {WAITING}"))
    return key_metrics


def _baselines(probe: Mapping[str, Any]) -> str:
    return f"chance {number(probe['chance'])}, majority {number(probe['majority'])}"


def _panels(folder: Path) -> dict[str, list[Panel]]:
    """Return the first, a middle and the last panel of each modality; the last is open."""
    by_modality: dict[str, list[tuple[int, Path]]] = {}
    for path in sorted(folder.glob("step-*.png")):
        if name := PANEL.fullmatch(path.name):
            by_modality.setdefault(name[2], []).append((int(name[1]), path))
    panels = {}
    for modality, pictures in by_modality.items():
        chosen = sorted({0, (len(pictures) - 1) // 2, len(pictures) - 1})
        panels[modality] = [
            Panel(f"{modality} after {pictures[k][0]:,} steps", _data_url(pictures[k][1]), k == chosen[-1])
            for k in chosen
        ]
    return panels


def _data_url(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def _probe_chart(validation: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Return the chart of both probes over the steps; None if there are no probes."""
    probed = [row for row in validation if "factors" in row and row["factors"]["content"]["probe"]]
    if not probed:
        return None
    series = []
    for factor, title in FACTOR_NAMES.items():
        accuracies = [row["factors"][factor]["probe"]["accuracy"] for row in probed]
        low, value, high = ([each[name] for each in accuracies] for name in ("low", "value", "high"))
        steps = [row["step"] for row in probed]
        series.append(Band(name=title, steps=steps, values=value, lows=low, highs=high))
    last = probed[-1]["factors"]["content"]["probe"]
    references = [(name, last[name]) for name in ("chance", "majority")]
    return Markup(bands(series, references, "balanced accuracy of the domain probes"))  # noqa: S704


def _last_with_factors(validation: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the last row with factors; the rows of a generator have none."""
    return next((row for row in reversed(validation) if "factors" in row), None)


def _json(folder: Path, name: str) -> dict[str, Any] | None:
    """Return the content of a JSON file in the folder of a run; None if the file does not exist."""
    path = folder / name
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(
            f"{name}: this file is damaged. Delete it, and run the command that wrote it again."
        ) from error


def _factor_rows(factors: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """Return a table row for each factor."""
    rows = []
    for factor, title in FACTOR_NAMES.items() if factors else ():
        result = factors["factors"][factor]  # type: ignore[index]
        probe, silhouette = result["probe"], result["silhouette"]
        rows.append(
            {
                "factor": title,
                "accuracy": _interval(probe["accuracy"]) if probe else "–",
                "comparison": _baselines(probe) if probe else "–",
                "silhouette": _interval(silhouette) if silhouette else "–",
            }
        )
    return rows


def _interval(estimate: Mapping[str, float]) -> str:
    return f"{number(estimate['value'])} ({number(estimate['low'])} to {number(estimate['high'])})"


def _maps(table: Path) -> list[Markup]:
    """Return the maps of style and content, and their legend, from the table of samples."""
    if not table.is_file():
        return []
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    domains = [row["domain"] for row in rows]
    if not rows or "style_map_x" not in rows[0]:
        return []
    charts = []
    for name, title in FACTOR_NAMES.items():
        positions = np.array([[float(row[f"{name}_map_{axis}"]) for axis in "xy"] for row in rows])
        charts.append(factor_map(title, positions, domains))
    return [Markup(chart) for chart in [*charts, map_legend(domains)]]  # noqa: S704 - made by charts.py


def number(value: float) -> str:
    """Format a number with three significant digits."""
    return f"{value:.3g}"
