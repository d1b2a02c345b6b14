"""SVG charts for the report, readable on a light and on a dark page.

Lines and text have the text colour of the page. palette.py holds the colours of the series.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice, product
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from meduet_training.reporting.palette import MARKERS, SERIES

PAGE_INK = "#010203"  # placeholder that becomes the text colour of the page
CURVE_SIZE, PROBE_SIZE, MAP_SIZE = (4.2, 2.3), (8.8, 3.0), (5.2, 4.6)  # inches
SMOOTHING_FRACTION = 0.05  # of the points of a curve, in the window of the running median
STYLE: dict[Any, Any] = {  # matplotlib types the keys of its settings as literals
    "svg.fonttype": "none",
    "svg.hashsalt": "meduet",  # equal data give equal bytes
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": PAGE_INK,
    "axes.edgecolor": PAGE_INK,
    "axes.labelcolor": PAGE_INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": PAGE_INK,
    "ytick.color": PAGE_INK,
    "legend.frameon": False,
}


@dataclass(frozen=True, kw_only=True)
class Band:
    """A series with an interval around each value."""

    name: str
    steps: Sequence[int]
    values: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]


def curve(name: str, steps: Sequence[int], values: Sequence[float | None], unit: str = "") -> str:
    """Return the chart of a quantity over the steps: thin points, and a thick running median.

    None values are gaps.
    """
    numbers = np.array([np.nan if value is None else value for value in values], float)
    with mpl.rc_context(STYLE):
        figure, axes = _axes(CURVE_SIZE)
        axes.plot(steps, numbers, color=SERIES[0], linewidth=0.7, alpha=0.45)
        axes.plot(steps, _running_median(numbers), color=SERIES[0], linewidth=1.6)
        axes.set_title(f"{name}, {unit}" if unit else name, loc="left", fontsize=10.5)
        _over_steps(axes)
        return _svg(figure, f"{name} over the steps")


def bands(series: Sequence[Band], references: Sequence[tuple[str, float]], title: str) -> str:
    """Return the chart of fractions over the steps with their intervals, and dashed reference lines."""
    with mpl.rc_context(STYLE):
        figure, axes = _axes(PROBE_SIZE)
        for each, colour, marker in zip(series, SERIES, MARKERS, strict=False):
            axes.fill_between(each.steps, each.lows, each.highs, color=colour, alpha=0.2, linewidth=0)
            axes.plot(each.steps, each.values, color=colour, marker=marker, markersize=4, label=each.name)
        for (name, value), dashes in zip(references, ("--", ":"), strict=False):
            axes.axhline(value, color=PAGE_INK, linestyle=dashes, linewidth=0.9, label=f"{name} {value:.2f}")
        axes.set_title(title, loc="left", fontsize=10.5)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
        _over_steps(axes)
        axes.set_ylim(-0.02, 1.02)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        return _svg(figure, f"{title} over the steps")


def factor_map(name: str, positions: np.ndarray, domains: Sequence[str]) -> str:
    """Return a t-SNE map (N, 2) with a colour and a marker for each domain; `map_legend` is its legend."""
    with mpl.rc_context(STYLE):
        return _svg(map_figure(name, positions, domains), f"t-SNE map of {name} by domain")


def map_figure(name: str, positions: np.ndarray, domains: Sequence[str]) -> Figure:
    """Return the t-SNE map as a matplotlib figure, with the rc settings of the caller."""
    figure, axes = _axes(MAP_SIZE)
    for domain, (marker, colour) in marks(domains).items():
        is_own = np.array([each == domain for each in domains])
        axes.scatter(
            *positions[is_own].T, s=20, c=colour, marker=marker, linewidths=0, alpha=0.85, label=domain
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(name, loc="left", fontsize=10.5)
    return figure


def marks(domains: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return marker and colour of each domain, equal on all maps of a run."""
    names = sorted(set(domains))
    pairs = islice(cycle(product(MARKERS, SERIES)), len(names))
    return dict(zip(names, pairs, strict=True))


def map_legend(domains: Sequence[str]) -> str:
    """Return the legend of the maps: mark, name and number of samples of each domain."""
    domain_marks = marks(domains)
    rows = -(-len(domain_marks) // 3)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.4, 0.25 * rows + 0.15))
        handles = [
            Line2D([], [], linestyle="", marker=marker, color=colour, markersize=5)
            for marker, colour in domain_marks.values()
        ]
        names = [f"{name} ({list(domains).count(name)})" for name in domain_marks]
        figure.legend(handles, names, loc="upper left", ncols=3, fontsize=9, borderaxespad=0)
        return _svg(figure, "marks of the domains")


def _axes(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def _over_steps(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="y", color=PAGE_INK, alpha=0.15, linewidth=0.6)
    axes.set_xlabel("step", fontsize=9)


def _running_median(numbers: np.ndarray) -> np.ndarray:
    """Return the running median; its window is smaller near the ends."""
    largest, last = round(SMOOTHING_FRACTION * len(numbers) / 2), len(numbers) - 1
    medians = []
    for k in range(len(numbers)):
        half = min(largest, k, last - k)
        window = numbers[k - half : k + half + 1]
        medians.append(np.nanmedian(window) if np.isfinite(window).any() else np.nan)
    return np.array(medians)


def _svg(figure: Figure, label: str) -> str:
    """Return a figure as inline SVG with unique ids, the text colour of the page, and an ARIA label."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL).replace(PAGE_INK, "currentColor")
    prefix = re.sub(r"\W+", "-", label).lower()
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
