"""Pictures of what a generator makes, beside the real crops it was asked for, as PNG files."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from meduet_training.evaluation.synthesis.evaluate import SynthesisEvaluation
from napari_meduet.volumes.files import write_atomically

DOTS_PER_INCH = 120
INCHES = 1.7  # of a slice
MOST_COLUMNS = 8


def write_synthesis_pictures(found: SynthesisEvaluation, folder: Path) -> list[Path]:
    """`samples.png`, `restyled.png` and `counterfactuals.png`: middle axial slices, anterior up."""
    material = found.material
    crops, wishes = material.crops, material.wishes
    shown = _spread(len(crops))
    asked = _spread(len(wishes))
    content, style = wishes.content[asked], wishes.style[asked]
    pictures = {
        "samples.png": (
            ["real", "reconstructed", "generated from its pooled factors"],
            [crops.units[shown], material.reconstructed[shown], material.paired_volumes[shown]],
            [str(crops.domains[k]) for k in shown],
        ),
        "restyled.png": (
            ["content", "style", "generated, same anatomy"],
            [crops.units[content], crops.units[style], material.restyled_volumes[asked]],
            [str(crops.domains[k]) for k in style],
        ),
    }
    for name, (rows, volumes, titles) in pictures.items():
        _write(folder / name, rows, [[_slice(each) for each in row] for row in volumes], titles)
    sweeps = found.swept[:MOST_COLUMNS]
    _write(
        folder / "counterfactuals.png",
        [str(crops.domains[sweep.row]) for sweep in sweeps],
        [[_slice(each) for each in [crops.units[sweep.row], *sweep.in_styles]] for sweep in sweeps],
        ["real", "its own style", *["another style"] * (max(len(sweep.styles) for sweep in sweeps) - 1)],
    )
    return [folder / name for name in (*pictures, "counterfactuals.png")]


def _spread(count: int) -> np.ndarray:
    """Rows to show: the first, since crops were drawn at random."""
    return np.arange(min(count, MOST_COLUMNS))


def _slice(volume: Tensor) -> np.ndarray:
    """The middle axial slice of (X, Y, Z), anterior up, the patient's right at the left."""
    middle = volume.shape[2] // 2
    return volume[:, :, middle].float().numpy().T[::-1, ::-1]


def _write(
    path: Path, rows: Sequence[str], slices: Sequence[Sequence[np.ndarray]], titles: Sequence[str]
) -> None:
    columns = max(len(row) for row in slices)
    with mpl.rc_context({"font.size": 7}):
        figure = Figure(figsize=(INCHES * columns, INCHES * len(slices) + 0.4), layout="constrained")
        axes = figure.subplots(len(slices), columns, squeeze=False)
        for at, row in zip(axes, slices, strict=True):
            for place in at:
                place.set_axis_off()
            for place, image in zip(at, row, strict=False):
                place.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        for place, title in zip(axes[0], titles, strict=False):
            place.set_title(_broken(title), fontsize=6)
        for at, name in zip(axes[:, 0], rows, strict=True):
            at.text(-0.04, 0.5, _broken(name), rotation=90, ha="right", va="center", transform=at.transAxes)
        with write_atomically(path, overwrite=True) as temporary:
            figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH)


def _broken(words: str) -> str:
    """At most about 20 letters a line."""
    lines = [""]
    for word in words.replace("-", "- ").split(" "):
        if len(lines[-1]) + len(word) > 20:
            lines.append("")
        lines[-1] += word if word.endswith("-") else word + " "
    return "\n".join(line.strip() for line in lines)
