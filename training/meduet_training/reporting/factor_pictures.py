"""The maps of content and style as PNG files, for slides and for people without a browser."""

from pathlib import Path

import matplotlib as mpl

from meduet_training.evaluation.factors.analysis import FactorAnalysis, FactorFindings
from meduet_training.evaluation.metrics.estimates import Estimate
from meduet_training.reporting.charts import map_figure
from napari_meduet.volumes.files import write_atomically

DOTS_PER_INCH = 160


def write_factor_pictures(analysis: FactorAnalysis, folder: Path) -> list[Path]:
    """`content.png` and `style.png`, where there are maps."""
    domains = [str(domain) for domain in analysis.samples.domains]
    written = []
    for name, title, found in (
        ("content", "content c₀", analysis.content),
        ("style", "style s₀", analysis.style),
    ):
        if found.embedding is None:
            continue
        with mpl.rc_context({"font.size": 9.5, "legend.frameon": False}):
            figure = map_figure(_title(title, found), found.embedding, domains)
            figure.patch.set_alpha(1)
            figure.legend(loc="outside lower center", ncols=2, fontsize=7)
            figure.set_size_inches(6.4, 5.2 + 0.16 * (len(set(domains)) // 2))
            with write_atomically(folder / f"{name}.png", overwrite=True) as temporary:
                figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)
        written.append(folder / f"{name}.png")
    return written


def _title(name: str, found: FactorFindings) -> str:
    """The name with its numbers, so that the picture can stand alone."""
    words = []
    if found.probe:
        words.append(f"domain probe {_interval(found.probe.accuracy)}, chance {found.probe.chance:.2f}")
    if found.silhouette:
        words.append(f"silhouette {_interval(found.silhouette)}")
    return "\n".join([name, *words])


def _interval(found: Estimate) -> str:
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
