"""PNG pictures of generated crops, with the real crops of their conditions."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from meduet_training.evaluation.synthesis.evaluate import SynthesisEvaluation
from meduet_training.reporting.panels import Row, Tile, draw_panel, grey
from napari_meduet.volumes.files import write_atomically

MAX_COLUMNS = 8
NOTE = (
    "Axial slices through the middle of each crop, front up, the patient's right on the left, over the "
    "full range of the intensity profile."
)


def write_synthesis_pictures(evaluation: SynthesisEvaluation, folder: Path) -> None:
    """Write `samples.png`, `target_styles.png` and `counterfactuals.png`, each with the first crops."""
    data = evaluation.data
    crops, target_styles = data.crops, data.target_styles.first(MAX_COLUMNS)
    first, content, style = slice(MAX_COLUMNS), target_styles.content, target_styles.style
    _write(
        folder / "samples.png",
        "Generated from the pooled factors of real crops",
        {
            "real": crops.voxels[first],
            "reconstructed": data.reconstructed[first],
            "generated": data.paired_volumes[first],
        },
        [str(domain) for domain in crops.domains[first]],
    )
    _write(
        folder / "target_styles.png",
        "Generated in the style of another domain",
        {
            "content": crops.voxels[content],
            "style": crops.voxels[style],
            "generated, same anatomy": data.in_target_style_volumes[first],
        },
        [str(domain) for domain in crops.domains[style]],
    )
    sweeps = evaluation.sweeps[:MAX_COLUMNS]
    num_styles = max(len(sweep.styles) for sweep in sweeps)
    _write(
        folder / "counterfactuals.png",
        "One content in several styles, with the same noise",
        {
            f"{number}  {crops.domains[sweep.row]}": [crops.voxels[sweep.row], *sweep.in_styles]
            for number, sweep in enumerate(sweeps, start=1)
        },
        ["real", "its own style", *["another style"] * (num_styles - 1)],
    )


def _write(
    path: Path, title: str, rows: Mapping[str, Tensor | Sequence[Tensor]], columns: Sequence[str]
) -> None:
    picture = draw_panel(
        title,
        NOTE,
        [
            Row(label=label, tiles=[Tile(image=grey(_middle_slice(each), (0.0, 1.0))) for each in volumes])
            for label, volumes in rows.items()
        ],
        columns,
    )
    with write_atomically(path, overwrite=True) as temporary:
        picture.save(temporary, format="png")


def _middle_slice(volume: Tensor) -> np.ndarray:
    """Return the middle axial slice (X, Y) of a volume."""
    return volume[..., volume.shape[2] // 2].float().numpy()
