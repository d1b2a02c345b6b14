"""Distances between the distributions of generated and real crops: FID, MMD and MS-SSIM."""

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
from meduet_training.evaluation.sections import EvaluationSection, Metric
from meduet_training.evaluation.synthesis.evaluation_data import EvaluationData

MAX_PAIRS = 1000  # of MS-SSIM (specification, section 14)
SLICE_DRAWS = 200  # fewer, because each draw computes the distances of three axes
DESCRIPTION = (
    "Held-out crops of {size} voxels are compared with crops generated from their own pooled content and "
    "style. Features of volumes: {extractor}. Features of slices (2.5-D, {slices} of a crop across each "
    "axis, mean of the three axes): {slice_extractor}, with every extractor. A reconstruction is a real "
    "crop after encoding and decoding, which no generator can surpass. The FID of so few crops is far from "
    "0 for equal distributions, so other crops of the same scans are given for comparison; compare only "
    "values with equal n and extractor. The MMD (squared, unbiased, RBF kernel with the median distance of "
    "real crops) is 0 on average for equal distributions and may be negative. Intervals are over crops "
    "drawn within each patient, shifted by the bias of drawing (2.5-D: {slice_draws} draws). The MS-SSIM "
    "of pairs measures the similarity of the samples of a set; a generator with little variety has a "
    "larger MS-SSIM than real crops."
)


def quality_section(data: EvaluationData) -> EvaluationSection:
    """Measure the distances between generated, reconstructed and real crops."""
    crops, seed = data.crops, data.seed
    sets = {
        "real": crops.voxels,
        "other real": data.others.voxels,
        "reconstructed": data.reconstructed,
        "generated": data.paired_volumes,
    }
    volumes = {name: data.extractor.features(each) for name, each in sets.items()}
    slices = {name: slice_features(each) for name, each in sets.items()}
    pairs = (
        ("generated", "real", ""),
        ("generated", "reconstructed", "error of the generator"),
        ("reconstructed", "real", "error of the tokenizer"),
        ("other real", "real", "a perfect generator"),
    )
    length = median_distance(volumes["real"])
    metrics = []
    for title, measure in (
        ("FID", lambda one, other: fid_estimate(volumes[one], volumes[other], crops.patients, seed)),
        ("MMD", lambda one, other: mmd_estimate(volumes[one], volumes[other], length, crops.patients, seed)),
        ("2.5-D FID", lambda one, other: slice_estimate(slices[one], slices[other], crops.patients, seed)),
    ):
        metrics += [
            Metric(name=f"{title}, {one} to {other}", estimate=measure(one, other), comparison=beside)
            for one, other, beside in pairs
        ]
    for name in ("generated", "reconstructed", "real"):
        metrics.append(
            Metric(
                name=f"MS-SSIM of pairs, {name}",
                estimate=diversity_estimate(sets[name], crops.patients, seed),
                comparison="larger for more similar samples",
            )
        )
    size = " × ".join(str(side) for side in crops.voxels.shape[1:])
    description = DESCRIPTION.format(
        size=size,
        extractor=data.extractor.name,
        slices=SLICES,
        slice_extractor=SLICE_EXTRACTOR,
        slice_draws=SLICE_DRAWS,
    )
    return EvaluationSection(
        title="Generated and real crops", description=description, metrics=tuple(metrics), seed=seed
    )


def fid_estimate(
    one: Float[np.ndarray, "N F"], other: Float[np.ndarray, "N F"], patients: np.ndarray, seed: int
) -> Estimate:
    """Return the Fréchet distance of two sets with paired rows, with its interval."""
    return set_estimate(by_rows(lambda rows: frechet_distance(one[rows], other[rows])), patients, seed)


def mmd_estimate(
    one: Float[np.ndarray, "N F"],
    other: Float[np.ndarray, "N F"],
    length: float,
    patients: np.ndarray,
    seed: int,
) -> Estimate:
    """Return the squared MMD of two sets with paired rows, with its interval.

    Args:
        length: length of the RBF kernel.
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
    """Return the Fréchet distance of slices, averaged over the axes; the bootstrap draws whole crops."""

    def distance(rows: np.ndarray) -> float:
        axes = range(one.shape[1])
        flat = [[each[rows, axis].reshape(-1, each.shape[-1]) for each in (one, other)] for axis in axes]
        return float(np.mean([frechet_distance(*pair) for pair in flat]))

    return set_estimate(by_rows(distance), patients, seed, SLICE_DRAWS)


def diversity_estimate(volumes: Iterable[Tensor], patients: np.ndarray, seed: int) -> Estimate:
    """Return the mean MS-SSIM of 1000 random pairs, or of all pairs if there are fewer."""
    scales = [scales_of(volume) for volume in volumes]
    first, second = np.triu_indices(len(scales), k=1)
    chosen = np.random.default_rng(seed).permutation(len(first))[:MAX_PAIRS]
    first, second = first[chosen], second[chosen]
    similarity = np.array([ms_ssim(scales[i], scales[j]) for i, j in zip(first, second, strict=True)])

    def mean(counts: np.ndarray) -> float:
        weights = counts[first] * counts[second]  # a crop is never paired with its own copies
        return float((weights * similarity).sum() / weights.sum())

    return set_estimate(mean, patients, seed)


def by_rows(statistic: Callable[[np.ndarray], float]) -> Callable[[np.ndarray], float]:
    """Turn a statistic of row indices, which may repeat, into a statistic of counts."""
    return lambda counts: statistic(np.repeat(np.arange(len(counts)), counts.astype(int)))
