"""Whether generated crops are distributed as real ones are: FID, MMD, MS-SSIM, the tokenizer's floor."""

from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from meduet_training.evaluation.metrics.distribution_distances import (
    frechet_distance,
    median_distance,
    rbf_kernel,
    unbiased_mmd,
)
from meduet_training.evaluation.metrics.estimates import Estimate
from meduet_training.evaluation.metrics.pyramid_features import NAME as SLICE_EXTRACTOR
from meduet_training.evaluation.metrics.set_estimates import set_estimate
from meduet_training.evaluation.metrics.structural_similarity import ms_ssim, scales_of
from meduet_training.evaluation.metrics.volume_features import SLICES, slice_features
from meduet_training.evaluation.sections import Figure, Part
from meduet_training.evaluation.synthesis.material import Material

MOST_PAIRS = 1000  # of MS-SSIM (specification, section 14)
SLICE_DRAWS = 200  # a drawn 2.5-D distance costs three of as many slices
HOW = (
    "Held-out crops of {size} voxels against crops generated from their own pooled content and style. "
    "Features of volumes: {extractor}; of slices (2.5-D, {slices} a crop across each axis, mean of the "
    "three axes): {slice_extractor}, whatever the extractor. The reconstruction is the real crop "
    "through the tokenizer, as near as any generator can come. A FID of so few crops is far from 0 for "
    "equal distributions, so other crops of the same scans are given beside it; compare only figures of"
    " equal n and extractor. The MMD (squared, unbiased, RBF kernel as long as the median distance of "
    "real crops) is 0 on average for equal distributions, and may be below. Intervals: crops drawn anew"
    " within each patient, moved by what drawing adds (2.5-D: {slice_draws} draws). MS-SSIM of pairs "
    "says how alike the samples of a set are; a generator that always makes the same shows a larger one"
    " than the real crops do."
)


def quality_part(material: Material) -> Part:
    """Distances of generated, reconstructed and real crops."""
    crops, seed = material.crops, material.seed
    sets = {
        "real": crops.units,
        "other real": material.others.units,
        "reconstructed": material.reconstructed,
        "generated": material.paired_volumes,
    }
    volumes = {name: material.extractor.features(each) for name, each in sets.items()}
    slices = {name: slice_features(each) for name, each in sets.items()}
    pairs = (
        ("generated", "real", ""),
        ("generated", "reconstructed", "what the generator adds"),
        ("reconstructed", "real", "the tokenizer's floor"),
        ("other real", "real", "what a perfect generator would have"),
    )
    length = median_distance(volumes["real"])
    figures = []
    for title, measure in (
        ("FID", lambda one, other: fid_estimate(volumes[one], volumes[other], crops.patients, seed)),
        ("MMD", lambda one, other: mmd_estimate(volumes[one], volumes[other], length, crops.patients, seed)),
        ("2.5-D FID", lambda one, other: slice_estimate(slices[one], slices[other], crops.patients, seed)),
    ):
        figures += [
            Figure(what=f"{title}, {one} to {other}", estimate=measure(one, other), beside=beside)
            for one, other, beside in pairs
        ]
    for name in ("generated", "reconstructed", "real"):
        figures.append(
            Figure(
                what=f"MS-SSIM of pairs, {name}",
                estimate=diversity_estimate(sets[name], crops.patients, seed),
                beside="the more alike, the larger",
            )
        )
    size = " × ".join(str(side) for side in crops.units.shape[1:])
    how = HOW.format(
        size=size,
        extractor=material.extractor.name,
        slices=SLICES,
        slice_extractor=SLICE_EXTRACTOR,
        slice_draws=SLICE_DRAWS,
    )
    return Part(title="Generated and real crops", how=how, figures=tuple(figures), seed=seed)


def fid_estimate(
    one: Float[np.ndarray, "N F"], other: Float[np.ndarray, "N F"], patients: np.ndarray, seed: int
) -> Estimate:
    """Fréchet distance of two sets whose rows belong together, with its interval."""
    return set_estimate(by_rows(lambda rows: frechet_distance(one[rows], other[rows])), patients, seed)


def mmd_estimate(
    one: Float[np.ndarray, "N F"],
    other: Float[np.ndarray, "N F"],
    length: float,
    patients: np.ndarray,
    seed: int,
) -> Estimate:
    """Squared MMD of two sets whose rows belong together, with its interval.

    Args:
        length: of the RBF kernel.
    """
    within, within_other, between = (
        rbf_kernel(*pair, length) for pair in ((one, one), (other, other), (one, other))
    )
    return set_estimate(
        lambda counts: unbiased_mmd(within, within_other, between, counts, counts), patients, seed
    )


def slice_estimate(
    one: Float[np.ndarray, "N A S F"], other: Float[np.ndarray, "N A S F"], patients: np.ndarray, seed: int
) -> Estimate:
    """Mean over the axes of the Fréchet distance of slices, crops drawn whole."""

    def distance(rows: np.ndarray) -> float:
        axes = range(one.shape[1])
        flat = [[each[rows, axis].reshape(-1, each.shape[-1]) for each in (one, other)] for axis in axes]
        return float(np.mean([frechet_distance(*pair) for pair in flat]))

    return set_estimate(by_rows(distance), patients, seed, SLICE_DRAWS)


def diversity_estimate(volumes: Iterable[Tensor], patients: np.ndarray, seed: int) -> Estimate:
    """Mean MS-SSIM of 1000 random pairs, or of all where there are fewer."""
    scales = [scales_of(volume) for volume in volumes]
    first, second = np.triu_indices(len(scales), k=1)
    chosen = np.random.default_rng(seed).permutation(len(first))[:MOST_PAIRS]
    first, second = first[chosen], second[chosen]
    alike = np.array([ms_ssim(scales[i], scales[j]) for i, j in zip(first, second, strict=True)])

    def mean(counts: np.ndarray) -> float:
        weights = counts[first] * counts[second]  # a crop is never paired with its own copies
        return float((weights * alike).sum() / weights.sum())

    return set_estimate(mean, patients, seed)


def by_rows(statistic: Callable[[np.ndarray], float]) -> Callable[[np.ndarray], float]:
    """A statistic of rows, some of them several times, as one of counts."""
    return lambda counts: statistic(np.repeat(np.arange(len(counts)), counts.astype(int)))
