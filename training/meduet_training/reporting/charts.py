"""Charts for a page that is read in the dark and in the light: SVG whose ink is the page's own.

Lines and words take the colour of the text around them; the series' colours are told apart by people with
any colour vision and stand out on white and on black.
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

INK = "#010203"  # replaced by the page's text colour
COLOURS = ("#4e8fd0", "#e08a1e", "#2ba58a", "#d0669b", "#8d7be0", "#c9a400", "#b5624a", "#7a8791")
MARKERS = "osD^vPX*"
CURVE_SIZE, PROBE_SIZE, MAP_SIZE = (4.2, 2.3), (8.8, 3.0), (5.2, 4.6)  # inches
SMOOTH_SHARE = 0.05  # of a curve's points: over so many the smooth line takes its median
STYLE: dict[Any, Any] = {  # matplotlib types the names of its settings one by one
    "svg.fonttype": "none",
    "svg.hashsalt": "meduet",  # the same numbers give the same bytes
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
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
    """A quantity over the steps: each point faint, their running median strong. Missing points are gaps."""
    numbers = np.array([np.nan if value is None else value for value in values], float)
    with mpl.rc_context(STYLE):
        figure, axes = _axes(CURVE_SIZE)
        axes.plot(steps, numbers, color=COLOURS[0], linewidth=0.7, alpha=0.45)
        axes.plot(steps, _running_median(numbers), color=COLOURS[0], linewidth=1.6)
        axes.set_title(f"{name}, {unit}" if unit else name, loc="left", fontsize=10.5)
        _over_steps(axes)
        return _svg(figure, f"{name} over the steps")


def bands(series: Sequence[Band], references: Sequence[tuple[str, float]], what: str) -> str:
    """Shares over the steps with their intervals, and dashed lines to compare them with."""
    with mpl.rc_context(STYLE):
        figure, axes = _axes(PROBE_SIZE)
        for each, colour, marker in zip(series, COLOURS, MARKERS, strict=False):
            axes.fill_between(each.steps, each.lows, each.highs, color=colour, alpha=0.2, linewidth=0)
            axes.plot(each.steps, each.values, color=colour, marker=marker, markersize=4, label=each.name)
        for (name, value), dashes in zip(references, ("--", ":"), strict=False):
            axes.axhline(value, color=INK, linestyle=dashes, linewidth=0.9, label=f"{name} {value:.2f}")
        axes.set_title(what, loc="left", fontsize=10.5)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
        _over_steps(axes)
        axes.set_ylim(-0.02, 1.02)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        return _svg(figure, f"{what} over the steps")


def factor_map(name: str, places: np.ndarray, domains: Sequence[str]) -> str:
    """A t-SNE map (N, 2), a colour and a shape for each domain; the legend is `map_legend`."""
    with mpl.rc_context(STYLE):
        return _svg(map_figure(name, places, domains), f"t-SNE map of {name} by domain")


def map_figure(name: str, places: np.ndarray, domains: Sequence[str]) -> Figure:
    """The same as a figure of its own, in the rc settings of the caller."""
    figure, axes = _axes(MAP_SIZE)
    for domain, (marker, colour) in marks(domains).items():
        mine = np.array([each == domain for each in domains])
        axes.scatter(*places[mine].T, s=20, c=colour, marker=marker, linewidths=0, alpha=0.85, label=domain)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(name, loc="left", fontsize=10.5)
    return figure


def marks(domains: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Marker and colour of each domain, the same on every map of a run: colours first, then shapes."""
    names = sorted(set(domains))
    pairs = islice(cycle(product(MARKERS, COLOURS)), len(names))
    return dict(zip(names, pairs, strict=True))


def map_legend(domains: Sequence[str]) -> str:
    """The marks of the maps with the names and counts of their domains."""
    found = marks(domains)
    rows = -(-len(found) // 3)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.4, 0.25 * rows + 0.15))
        handles = [
            Line2D([], [], linestyle="", marker=marker, color=colour, markersize=5)
            for marker, colour in found.values()
        ]
        words = [f"{name} ({list(domains).count(name)})" for name in found]
        figure.legend(handles, words, loc="upper left", ncols=3, fontsize=9, borderaxespad=0)
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
    axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.6)
    axes.set_xlabel("step", fontsize=9)


def _running_median(numbers: np.ndarray) -> np.ndarray:
    """The median of the points around each, of fewer towards the ends; themselves where there are few."""
    largest, last = round(SMOOTH_SHARE * len(numbers) / 2), len(numbers) - 1
    medians = []
    for k in range(len(numbers)):
        half = min(largest, k, last - k)
        around = numbers[k - half : k + half + 1]
        medians.append(np.nanmedian(around) if np.isfinite(around).any() else np.nan)
    return np.array(medians)


def _svg(figure: Figure, label: str) -> str:
    """The figure for a page: no prolog, ids of its own, the text's ink, a name for those who cannot see."""
    written = io.StringIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL).replace(INK, "currentColor")
    prefix = re.sub(r"\W+", "-", label).lower()
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
