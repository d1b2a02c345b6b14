"""Figures as lines of a table and as data for a card; what was measured is the other files' business."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from meduet_training.data.cohort.scans import Scan
from meduet_training.evaluation.metrics.estimates import Estimate
from napari_meduet.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number.

    Attributes:
        what: was measured, with its unit.
        at_least, at_most: the goal; a figure may have none.
        beside: what to compare it with: a baseline, chance, a caveat.
    """

    what: str
    estimate: Estimate
    at_least: float | None = None
    at_most: float | None = None
    beside: str = ""

    @property
    def goal(self) -> str:
        """The goal in words; empty if there is none."""
        if self.at_least is not None:
            return f"≥ {self.at_least:.3g}"
        return f"≤ {self.at_most:.3g}" if self.at_most is not None else ""

    @property
    def is_reached(self) -> bool:
        """Whether the number itself, not its interval, lies beyond the goal."""
        return (self.at_least is None or self.estimate.value >= self.at_least) and (
            self.at_most is None or self.estimate.value <= self.at_most
        )


@dataclass(frozen=True, kw_only=True)
class Table:
    """Single scans or pairs behind the figures."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str | float | bool | None]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """All that one question gave.

    Attributes:
        title: of its section.
        how: how it was measured, and what the numbers cannot say.
    """

    title: str
    how: str
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...] = ()
    seed: int

    def as_data(self) -> dict[str, Any]:
        """For the model card: the figures, without the single scans."""
        records = [
            {"what": figure.what}
            | {name: _rounded(value) for name, value in asdict(figure.estimate).items()}
            | {"goal": figure.goal, "reached": figure.is_reached, "beside": figure.beside}
            for figure in self.figures
        ]
        return {"seed": self.seed, "figures": records}

    def as_markdown(self) -> str:
        """For the documentation and the terminal."""
        rows = [
            (
                figure.what,
                _shown(figure.estimate.value),
                f"{_shown(figure.estimate.low)} – {_shown(figure.estimate.high)}",
                f"{figure.estimate.num_samples} / {figure.estimate.num_patients}",
                figure.goal and f"{figure.goal} {'reached' if figure.is_reached else '**missed**'}",
                figure.beside,
            )
            for figure in self.figures
        ]
        columns = ("figure", "value", "95 % interval", "n / patients", "goal", "beside")
        blocks = [f"### {self.title}", f"{self.how} Seed {self.seed}.", markdown_table(columns, rows)]
        for table in self.tables:
            blocks += [f"**{table.title}**", markdown_table(table.columns, table.rows)]
        return "\n\n".join(blocks) + "\n"


def case_name(scan: Scan) -> str:
    """What a scan of a public data set is called there."""
    return scan.path.name.split(".")[0]


def check_section(document: Path, name: str) -> None:
    """Refuse a document without exactly one place for the text of that name, before hours are spent on it.

    Raises:
        InputError: there is no such page, or it has no such markers.
    """
    if not document.is_file():
        raise InputError(f"{document.name}: there is no such page.")
    begin, end, section = _section(name)
    if len(section.findall(document.read_text("utf-8"))) != 1:
        raise InputError(f"{document.name}: exactly one pair of the markers {begin} and {end} is expected.")


def write_section(document: Path, name: str, text: str) -> None:
    """Put a text between the markers of that name in a document.

    Raises:
        InputError: the document has no such markers.
    """
    check_section(document, name)
    begin, end, section = _section(name)
    content = document.read_text("utf-8")
    document.write_text(section.sub(lambda _: f"{begin}\n\n{text}\n{end}", content), "utf-8")


def _section(name: str) -> tuple[str, str, re.Pattern[str]]:
    """The markers of that name, and what finds all between them."""
    begin, end = f"<!-- figures: {name} -->", f"<!-- end of figures: {name} -->"
    return begin, end, re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows under the names of their columns; a dash where a cell is None."""
    lines = [columns, ["---"] * len(columns), *[[_shown(cell) for cell in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}") if isinstance(value, float) else value
