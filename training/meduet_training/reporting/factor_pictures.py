"""The t-SNE maps of content and style as PNG files."""

from pathlib import Path

import matplotlib as mpl

from meduet_training.evaluation.factors.analysis import FactorAnalysis, FactorResult
from meduet_training.evaluation.metrics.estimates import Estimate
from meduet_training.reporting.charts import map_figure
from napari_meduet.volumes.files import write_atomically

DOTS_PER_INCH = 160


def write_factor_pictures(analysis: FactorAnalysis, folder: Path) -> list[Path]:
    """Write `content.png` and `style.png`, if the analysis has maps."""
    domains = [str(domain) for domain in analysis.samples.domains]
    written = []
    for name, title, result in (
        ("content", "content c₀", analysis.content),
        ("style", "style s₀", analysis.style),
    ):
        if result.embedding is None:
            continue
        with mpl.rc_context({"font.size": 9.5, "legend.frameon": False}):
            figure = map_figure(_title(title, result), result.embedding, domains)
            figure.patch.set_alpha(1)
            figure.legend(loc="outside lower center", ncols=2, fontsize=7)
            figure.set_size_inches(6.4, 5.2 + 0.16 * (len(set(domains)) // 2))
            with write_atomically(folder / f"{name}.png", overwrite=True) as temporary:
                figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)
        written.append(folder / f"{name}.png")
    return written


def _title(name: str, result: FactorResult) -> str:
    """Return the name of the factor with its metrics."""
    lines = [name]
    if result.probe:
        lines.append(f"domain probe {_interval(result.probe.accuracy)}, chance {result.probe.chance:.2f}")
    if result.silhouette:
        lines.append(f"silhouette {_interval(result.silhouette)}")
    return "\n".join(lines)


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"
