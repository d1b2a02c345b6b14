"""Counterfactual sweeps: the changes when only the style changes (specification, section 13)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from torch import Tensor

from meduet_training.evaluation.metrics.estimates import mean_estimate
from meduet_training.evaluation.sections import EvaluationSection, Metric
from meduet_training.evaluation.synthesis.evaluation_data import EvaluationData
from meduet_training.evaluation.synthesis.generated_crops import CropConditions, decoded
from meduet_training.evaluation.synthesis.target_styles import families_of

SWEEP_STEP = 8  # one sweep for 8 crops
MAX_STYLES = 4
BODY_INTENSITY = 0.1  # normalised; soft tissue, lung with blood and MR foreground are above it, air is below
SMOOTHING = 1.0  # voxels, before gradients
DESCRIPTION = (
    "For {number} contents, up to {styles} held-out scans of the same modality and region give the style, "
    "with spatial content and noise fixed. For comparison, the noise changes while the style is fixed. The "
    "change is the mean absolute difference to the first sample, in normalised intensity (0 to 1), inside "
    "the body (smoothed content above 0.1) and outside it. The correlation is that of gradient magnitudes "
    "inside the body, smoothed by one voxel; it is 1 where every border is unchanged. A good generator "
    "changes the intensities inside the body, does not change the outside, and changes borders less than "
    "new noise does."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sweep:
    """Volumes of one content: in each style with one noise, and in its own style with two noises.

    Attributes:
        row: row of the content crop.
        styles: rows of the crops whose scans gave the styles.
    """

    row: int
    styles: np.ndarray
    in_styles: Float[Tensor, "S X Y Z"]
    in_noises: Float[Tensor, "2 X Y Z"]


def generate_sweeps(data: EvaluationData) -> list[Sweep]:
    """Generate sweeps of the first contents that have a compatible style."""
    crops, target_styles = data.crops, data.target_styles
    rows = np.unique(target_styles.content)[: max(len(crops) // SWEEP_STEP, 2)]
    generated = []
    for row in rows:
        styles = _styles(data, row)
        content = {"content": crops.content[row], "tokens": crops.spatial_content[row]}
        conditions = [CropConditions(noise=int(row), style=crops.style[style], **content) for style in styles]
        new_noise = CropConditions(noise=int(row) + len(crops), style=crops.style[styles[0]], **content)
        volumes = decoded(data.model, data.sampler.latents([*conditions, new_noise]))
        generated.append(
            Sweep(
                row=int(row), styles=styles, in_styles=volumes[:-1], in_noises=volumes[[0, len(volumes) - 1]]
            )
        )
    return generated


def counterfactual_section(data: EvaluationData, sweeps: list[Sweep]) -> EvaluationSection:
    """Measure the changes of another style, and those of another noise."""
    crops = data.crops
    metrics = []
    for change, volumes in (
        ("another style, same noise", [sweep.in_styles for sweep in sweeps]),
        ("same style, other noise", [sweep.in_noises for sweep in sweeps]),
    ):
        numbers, patients = [], []
        for sweep, each in zip(sweeps, volumes, strict=True):
            body = gaussian_filter(crops.voxels[sweep.row].float().numpy(), SMOOTHING) > BODY_INTENSITY
            for other in each[1:]:
                numbers.append(changes(each[0].float().numpy(), other.float().numpy(), body))
                patients.append(crops.patients[sweep.row])
        for name, column in zip(
            ("change inside the body", "change outside", "correlation of borders"),
            np.array(numbers).T,
            strict=True,
        ):
            is_usable = np.isfinite(column)  # a crop may have no voxel outside the body
            if is_usable.any():
                own_patients = np.array(patients)[is_usable].tolist()
                estimate = mean_estimate(column[is_usable].tolist(), own_patients, data.seed)
                metrics.append(Metric(name=f"{change}: {name}", estimate=estimate))
    description = DESCRIPTION.format(number=len(sweeps), styles=MAX_STYLES)
    return EvaluationSection(
        title="Same-noise counterfactuals", description=description, metrics=tuple(metrics), seed=data.seed
    )


def changes(
    one: Float[np.ndarray, "X Y Z"], other: Float[np.ndarray, "X Y Z"], body: np.ndarray
) -> tuple[float, float, float]:
    """Return the mean absolute change inside and outside the body, and the correlation of borders inside it.

    A value is NaN where the crop has no voxels or no borders to measure it.
    """
    difference = np.abs(one - other)
    inside, outside = (float(difference[mask].mean()) if mask.any() else np.nan for mask in (body, ~body))
    first, second = (
        np.sqrt(sum(np.square(step) for step in np.gradient(gaussian_filter(each, SMOOTHING))))[body]
        for each in (one, other)
    )
    is_flat = not len(first) or not (first.std() and second.std())
    return inside, outside, np.nan if is_flat else float(np.corrcoef(first, second)[0, 1])


def _styles(data: EvaluationData, row: int) -> np.ndarray:
    """Return the rows of the styles of a sweep: the own style first, then one of each compatible domain."""
    crops, families = data.crops, families_of(data.crops)
    others = np.flatnonzero((families == families[row]) & (crops.domains != crops.domains[row]))
    _, first = np.unique(crops.domains[others], return_index=True)
    return np.array([row, *others[first][: MAX_STYLES - 1]])
