"""Same-noise counterfactual sweeps: what changes where when only the style does (specification, section 13)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from torch import Tensor

from meduet_training.evaluation.metrics.estimates import mean_estimate
from meduet_training.evaluation.sections import Figure, Part
from meduet_training.evaluation.synthesis.generated_crops import Wanted, decoded
from meduet_training.evaluation.synthesis.material import Material
from meduet_training.evaluation.synthesis.target_styles import families_of

SWEEP_SHARE = 8  # one in so many crops is swept
MOST_STYLES = 4
BODY_UNITS = 0.1  # profile units: soft tissue, lung with blood and MR foreground lie above, air below
SMOOTHING = 1.0  # voxels, before gradients
HOW = (
    "For {number} contents the style goes through up to {styles} held-out scans of its modality and "
    "region, with the content of every place and the noise fixed; beside it the style is kept and the "
    "noise drawn anew. Change is the mean absolute difference to the first of the sweep, in profile units"
    " (0 to 1), inside the body (smoothed content above 0.1) and outside it. The correlation is that of "
    "gradient sizes smoothed by one voxel, inside the body: 1 where every border stayed. A generator that"
    " obeys changes the look inside the body, keeps what lies outside, and keeps borders better than new "
    "noise does."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sweep:
    """One content: the volumes in each style with one noise, and in its own style with two noises."""

    row: int
    styles: np.ndarray  # rows of the crops whose scans gave the styles
    in_styles: Float[Tensor, "S X Y Z"]
    in_noises: Float[Tensor, "2 X Y Z"]


def sweeps(material: Material) -> list[Sweep]:
    """Sweeps of the first contents for which another style fits."""
    crops, wishes = material.crops, material.wishes
    rows = np.unique(wishes.content)[: max(len(crops) // SWEEP_SHARE, 2)]
    found = []
    for row in rows:
        styles = _styles(material, row)
        fixed = {"content": crops.content[row], "tokens": crops.spatial_content[row]}
        wanted = [Wanted(noise=int(row), style=crops.style[style], **fixed) for style in styles]
        anew = Wanted(noise=int(row) + len(crops), style=crops.style[styles[0]], **fixed)
        volumes = decoded(material.model, material.maker.latents([*wanted, anew]))
        found.append(
            Sweep(
                row=int(row), styles=styles, in_styles=volumes[:-1], in_noises=volumes[[0, len(volumes) - 1]]
            )
        )
    return found


def counterfactual_part(material: Material, found: list[Sweep]) -> Part:
    """How much a style changes and where, against what noise changes."""
    crops = material.crops
    figures = []
    for what, volumes in (
        ("another style, same noise", [sweep.in_styles for sweep in found]),
        ("same style, other noise", [sweep.in_noises for sweep in found]),
    ):
        numbers, patients = [], []
        for sweep, each in zip(found, volumes, strict=True):
            body = gaussian_filter(crops.units[sweep.row].float().numpy(), SMOOTHING) > BODY_UNITS
            for other in each[1:]:
                numbers.append(changes(each[0].float().numpy(), other.float().numpy(), body))
                patients.append(crops.patients[sweep.row])
        for name, column in zip(
            ("change inside the body", "change outside", "correlation of borders"),
            np.array(numbers).T,
            strict=True,
        ):
            usable = np.isfinite(column)  # a crop may have no voxel outside the body
            if usable.any():
                whose = [patient for patient, is_usable in zip(patients, usable, strict=True) if is_usable]
                estimate = mean_estimate(column[usable].tolist(), whose, material.seed)
                figures.append(Figure(what=f"{what}: {name}", estimate=estimate))
    how = HOW.format(number=len(found), styles=MOST_STYLES)
    return Part(title="Same-noise counterfactuals", how=how, figures=tuple(figures), seed=material.seed)


def changes(
    one: Float[np.ndarray, "X Y Z"], other: Float[np.ndarray, "X Y Z"], body: np.ndarray
) -> tuple[float, float, float]:
    """Mean absolute change inside and outside the body, and how borders in it correlate; NaN: none."""
    difference = np.abs(one - other)
    inside, outside = (float(difference[where].mean()) if where.any() else np.nan for where in (body, ~body))
    first, second = (
        np.sqrt(sum(np.square(step) for step in np.gradient(gaussian_filter(each, SMOOTHING))))[body]
        for each in (one, other)
    )
    is_flat = not len(first) or not (first.std() and second.std())
    return inside, outside, np.nan if is_flat else float(np.corrcoef(first, second)[0, 1])


def _styles(material: Material, row: int) -> np.ndarray:
    """Rows of the crops whose styles a content goes through: its own, then one of each domain that fits."""
    crops, families = material.crops, families_of(material.crops)
    others = np.flatnonzero((families == families[row]) & (crops.domains != crops.domains[row]))
    _, first = np.unique(crops.domains[others], return_index=True)
    return np.array([row, *others[first][: MOST_STYLES - 1]])
