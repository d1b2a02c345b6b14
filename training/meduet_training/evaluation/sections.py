"""Metrics as tables of a page and as data for a model card.

The files of the folders beside this one compute the metrics. metrics/estimates.py computes their intervals.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from meduet_training.data.cohort.scans import Scan
from meduet_training.evaluation.metrics.estimates import Estimate
from napari_meduet.errors import InputError
from napari_meduet.volumes.files import write_atomically


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One measured number.

    Attributes:
        name: name of the metric, with its unit.
        at_least, at_most: the goal. None: the metric has no goal on this side.
        comparison: what the value should be compared with: a baseline, chance, or a limitation.
    """

    name: str
    estimate: Estimate
    at_least: float | None = None
    at_most: float | None = None
    comparison: str = ""

    @property
    def goal(self) -> str:
        """The goal as text; empty if there is none."""
        if self.at_least is not None:
            return f"≥ {self.at_least:.3g}"
        return f"≤ {self.at_most:.3g}" if self.at_most is not None else ""

    @property
    def is_reached(self) -> bool:
        """Whether the value reaches the goal; the interval is not considered."""
        return (self.at_least is None or self.estimate.value >= self.at_least) and (
            self.at_most is None or self.estimate.value <= self.at_most
        )


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of single scans or pairs."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str | float | bool | None]]


@dataclass(frozen=True, kw_only=True)
class EvaluationSection:
    """The metrics and tables of one evaluation.

    Attributes:
        description: how the metrics were measured, and their limitations.
        seed: seed of samples and intervals.
    """

    title: str
    description: str
    metrics: tuple[Metric, ...]
    tables: tuple[Table, ...] = ()
    seed: int

    def as_data(self) -> dict[str, Any]:
        """Return the metrics as JSON types for a model card, without the tables."""
        records = [
            {"name": metric.name}
            | {name: _rounded(value) for name, value in asdict(metric.estimate).items()}
            | {"goal": metric.goal, "reached": metric.is_reached, "comparison": metric.comparison}
            for metric in self.metrics
        ]
        return {"seed": self.seed, "metrics": records}

    def as_markdown(self) -> str:
        """Return metrics and tables as Markdown, for the documentation and the terminal."""
        rows = [
            (
                metric.name,
                _cell(metric.estimate.value),
                f"{_cell(metric.estimate.low)} – {_cell(metric.estimate.high)}",
                f"{metric.estimate.num_samples} / {metric.estimate.num_patients}",
                metric.goal and f"{metric.goal} {'reached' if metric.is_reached else '**missed**'}",
                metric.comparison,
            )
            for metric in self.metrics
        ]
        columns = ("metric", "value", "95 % interval", "n / patients", "goal", "comparison")
        blocks = [f"### {self.title}", f"{self.description} Seed {self.seed}.", markdown_table(columns, rows)]
        for table in self.tables:
            blocks += [f"**{table.title}**", markdown_table(table.columns, table.rows)]
        return "\n\n".join(blocks) + "\n"


class Evaluation(Protocol):
    """The result of a command of `meduet-evaluate`."""

    def as_data(self) -> dict[str, Any]:
        """Return metrics, settings and tables as JSON types."""
        ...

    def as_markdown(self) -> str:
        """Return metrics and tables as Markdown."""
        ...


def write_evaluation(evaluation: Evaluation, name: str, folder: Path, document: Path | None) -> None:
    """Write `NAME.json` and `NAME.md` into a folder, and the tables into a document.

    Args:
        document: a page with the markers of the name. None: only the folder is written.

    Raises:
        InputError: the document does not have the markers.
    """
    write_json_and_markdown(folder, name, evaluation.as_data(), evaluation.as_markdown())
    if document is not None:
        write_section(document, name, evaluation.as_markdown())


def write_json_and_markdown(
    folder: Path, name: str, data: dict[str, Any], markdown: str, *, allow_nan: bool = False
) -> None:
    """Write `NAME.json` and `NAME.md`, each of them completely or not at all."""
    texts = {"json": json.dumps(data, indent=2, allow_nan=allow_nan) + "\n", "md": markdown}
    for ending, text in texts.items():
        with write_atomically(folder / f"{name}.{ending}", overwrite=True) as temporary:
            temporary.write_text(text, "utf-8")


def case_name(scan: Scan) -> str:
    """Return the name of a scan in its public data set."""
    return scan.path.name.split(".")[0]


def check_section(document: Path, name: str) -> None:
    """Check that a document has exactly one pair of markers of this name, before a long evaluation starts.

    Raises:
        InputError: the document does not exist, or does not have the markers.
    """
    if not document.is_file():
        raise InputError(f"{document.name}: this file does not exist. Give a page with markers.")
    begin, end, section = _markers(name)
    if (count := len(section.findall(document.read_text("utf-8")))) != 1:
        raise InputError(
            f"{document.name}: found {count} pairs of the markers {begin} and {end}; expected exactly one. "
            "Add the two lines where the tables should be."
        )


def write_section(document: Path, name: str, text: str) -> None:
    """Replace the text between the markers of this name in a document.

    Raises:
        InputError: the document does not have the markers.
    """
    check_section(document, name)
    begin, end, section = _markers(name)
    content = document.read_text("utf-8")
    document.write_text(section.sub(lambda _: f"{begin}\n\n{text}\n{end}", content), "utf-8")


def _markers(name: str) -> tuple[str, str, re.Pattern[str]]:
    """Return both markers of a name, and the pattern of the markers with the text between them."""
    begin, end = f"<!-- metrics: {name} -->", f"<!-- end of metrics: {name} -->"
    return begin, end, re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table; a cell of None is a dash."""
    lines = [columns, ["---"] * len(columns), *[[_cell(value) for value in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}") if isinstance(value, float) else value
