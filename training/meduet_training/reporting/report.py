"""The report of a run: one page that opens anywhere and asks nothing from the network.

It is made from what lies in the run's folder (card, logs, panels, factors) and can be made again at any time,
also of a run that is still going or was killed. What is missing is said, not guessed.
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
SETTLED = 1  # rows that are left out of the timing: the first steps compile and warm up


@dataclass(frozen=True)
class Panel:
    """One picture of the page."""

    title: str
    source: str  # a data URL
    is_open: bool


def write_report(folder: Path) -> Path:
    """Make `report.html` of a run's folder.

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
        key_figures=_key_figures(card, rows, factors or _last_with_factors(validation)),
        losses=_curves(rows, {name: name.removeprefix(LOSS) for name in _names(rows, LOSS)}),
        optimisation=_curves(
            rows,
            OPTIMISATION
            | {name: f"norm of {name.removeprefix(FEATURES)}" for name in _names(rows, FEATURES)},
        ),
        timing=_curves(rows, TIMING),
        timing_table=_timing(rows) + _watching_time(validation),
        panels=_panels(folder / PANELS),
        probe_chart=_probe_chart(validation),
        reconstruction=_curves(
            validation, {"reconstruction": "reconstruction error of the validation crops"}
        ),
        judged=_judged(validation),
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
    """How the run stands, in a sentence."""
    words = {
        "running": "still running, or killed without a word",
        "finished": "finished",
        "stopped": "stopped on request; the same command goes on from its last checkpoint",
        "failed": f"ended by an error ({card.failure}); the same command goes on from its last checkpoint",
    }[card.status]
    resumed = {0: "in one go", 1: "gone on with once"}.get(card.resumed, f"gone on with {card.resumed} times")
    return f"{card.steps_done} of {card.total_steps} steps, {resumed}: {words}."


def _hours(card: RunCard) -> float:
    """Of the sessions that came to an end."""
    seconds = [
        (datetime.fromisoformat(each.ended) - datetime.fromisoformat(each.started)).total_seconds()
        for each in card.sessions
        if each.ended is not None
    ]
    return sum(seconds) / 3600


def _names(rows: Sequence[Mapping[str, Any]], prefix: str) -> list[str]:
    """The logged quantities that begin so, the sum of the losses first."""
    names = {name for row in rows for name in row if name.startswith(prefix)}
    return sorted(names, key=lambda name: (not name.endswith("/total"), name))


def _curves(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> list[Markup]:
    """A chart of each quantity that was logged at all."""
    charts = []
    for name, title in titles.items():
        points = [(row["step"], row[name]) for row in rows if name in row]
        if any(value is not None for _, value in points):
            steps, values = zip(*points, strict=True)
            charts.append(Markup(curve(title, steps, values)))  # noqa: S704 - made by charts.py
    return charts


def _judged(validation: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """Charts of what a network without factors was judged by."""
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
    """Medians after the first rows."""
    settled = rows[SETTLED:]
    medians = {
        name: statistics.median(found)
        for name in TIMING
        if (found := [row[name] for row in settled if row.get(name) is not None])
    }
    table = [(f"median {title}", number(medians[name])) for name, title in TIMING.items() if name in medians]
    if medians.get("time/step_seconds"):
        share = medians["time/data_wait_seconds"] / medians["time/step_seconds"]
        table.append((WAITING, f"{share:.1%}"))
    return table


def _watching_time(validation: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What looking cost, which is no part of a step."""
    seconds = [row["seconds"] for row in validation]
    if not seconds:
        return []
    return [(f"{len(seconds)} validations with their panels, s", number(sum(seconds)))]


def _key_figures(
    card: RunCard, rows: Sequence[Mapping[str, Any]], measured: Mapping[str, Any] | None
) -> list[tuple[str, str, str]]:
    """What, how much, beside what: the numbers at the top."""
    figures = [("steps", f"{card.steps_done:,}", f"of {card.total_steps:,}")]
    if rows and rows[-1].get(f"{LOSS}total") is not None:
        figures.append(("loss", number(rows[-1][f"{LOSS}total"]), f"at step {rows[-1]['step']:,}"))
    for factor, title in FACTOR_NAMES.items():
        probe = measured["factors"][factor]["probe"] if measured else None
        if probe:
            accuracy = probe["accuracy"]
            interval = f"{number(accuracy['low'])} to {number(accuracy['high'])}"
            figures.append(
                (f"domain read from {title}", number(accuracy["value"]), f"{interval}; {_beside(probe)}")
            )
    timing = dict(_timing(rows))
    if waiting := timing.get(WAITING):
        figures.append(("time of a step", f"{timing['median step time, s']} s", f"{waiting} {WAITING}"))
    return figures


def _beside(probe: Mapping[str, Any]) -> str:
    return f"chance {number(probe['chance'])}, majority {number(probe['majority'])}"


def _panels(folder: Path) -> dict[str, list[Panel]]:
    """The first, a middle and the last picture of each modality; the last is open."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in sorted(folder.glob("step-*.png")):
        if name := PANEL.fullmatch(path.name):
            found.setdefault(name[2], []).append((int(name[1]), path))
    panels = {}
    for modality, pictures in found.items():
        wanted = sorted({0, (len(pictures) - 1) // 2, len(pictures) - 1})
        panels[modality] = [
            Panel(f"{modality} after {pictures[k][0]:,} steps", _data_url(pictures[k][1]), k == wanted[-1])
            for k in wanted
        ]
    return panels


def _data_url(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def _probe_chart(validation: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Both probes over the steps; None where nothing could be probed."""
    probed = [row for row in validation if "factors" in row and row["factors"]["content"]["probe"]]
    if not probed:
        return None
    series = []
    for factor, title in FACTOR_NAMES.items():
        found = [row["factors"][factor]["probe"]["accuracy"] for row in probed]
        low, value, high = ([each[name] for each in found] for name in ("low", "value", "high"))
        steps = [row["step"] for row in probed]
        series.append(Band(name=title, steps=steps, values=value, lows=low, highs=high))
    last = probed[-1]["factors"]["content"]["probe"]
    references = [(name, last[name]) for name in ("chance", "majority")]
    return Markup(bands(series, references, "balanced accuracy of the domain probes"))  # noqa: S704


def _last_with_factors(validation: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The last row with probes; those of a generator have none."""
    return next((row for row in reversed(validation) if "factors" in row), None)


def _json(folder: Path, name: str) -> dict[str, Any] | None:
    """What a file of a run's folder holds; None where there is none."""
    path = folder / name
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{name}: is damaged; delete it, and what made it makes it anew.") from error


def _factor_rows(factors: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """A row of the table for each factor."""
    rows = []
    for factor, title in FACTOR_NAMES.items() if factors else ():
        found = factors["factors"][factor]  # type: ignore[index]
        probe, silhouette = found["probe"], found["silhouette"]
        rows.append(
            {
                "factor": title,
                "accuracy": _interval(probe["accuracy"]) if probe else "–",
                "beside": _beside(probe) if probe else "–",
                "silhouette": _interval(silhouette) if silhouette else "–",
            }
        )
    return rows


def _interval(found: Mapping[str, float]) -> str:
    return f"{number(found['value'])} ({number(found['low'])} to {number(found['high'])})"


def _maps(table: Path) -> list[Markup]:
    """The maps of style and content and the legend of both, from the rows of the samples."""
    if not table.is_file():
        return []
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    domains = [row["domain"] for row in rows]
    if not rows or "style_map_x" not in rows[0]:
        return []
    charts = []
    for name, title in FACTOR_NAMES.items():
        places = np.array([[float(row[f"{name}_map_{axis}"]) for axis in "xy"] for row in rows])
        charts.append(factor_map(title, places, domains))
    return [Markup(chart) for chart in [*charts, map_legend(domains)]]  # noqa: S704 - made by charts.py


def number(value: float) -> str:
    """Three figures, as the JSON beside rounds to."""
    return f"{value:.3g}"
