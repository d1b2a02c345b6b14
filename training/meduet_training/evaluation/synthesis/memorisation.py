"""The memorisation audit of a generator: are samples copies of training crops? (specification, section 13)"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from meduet_training.data.caches.factors import FactorEntry
from meduet_training.data.sources.factors import FactorSource
from meduet_training.evaluation.metrics.nearest_neighbours import (
    NEAR_PERCENTILE,
    distance_ratio,
    fraction_too_near,
    nearest_distances,
)
from meduet_training.evaluation.metrics.set_estimates import set_estimate
from meduet_training.evaluation.sections import EvaluationSection, Metric
from meduet_training.evaluation.synthesis.evaluation_data import EvaluationData
from meduet_training.evaluation.synthesis.generated_crops import CropConditions
from meduet_training.evaluation.synthesis.quality import by_rows

DESCRIPTION = (
    "Distance of each generated crop to the nearest of {number} crops of {scans} training scans (every "
    "crop that starts at a token; root mean square difference of the standardised latents), and the same "
    "for real held-out crops. Copies would give a ratio far below 1, or a fraction far above 0.05 below "
    "the 5th percentile of the real crops. Samples are generated from the pooled factors of held-out "
    "scans, and from those of training crops, which is the harder test. A generator of smooth crops is "
    "nearer to all crops, so the nearest single crop is given too. Mirrored and rotated copies are not "
    "searched for."
)
COPY = 0.5  # of the smallest real distance; nearer samples are called copies


def memory_section(data: EvaluationData) -> EvaluationSection:
    """Measure the distances to the nearest training crops."""
    patch, size = data.model.meduet.config.patch_size, data.sampler.size
    real = nearest_distances(data.crops.latent, _latents(data.training, size), patch)
    held_out = nearest_distances(data.paired, _latents(data.training, size), patch)
    latents, patients = _from_training_factors(data)
    trained = nearest_distances(latents, _latents(data.training, size), patch)
    metrics: list[Metric] = []
    for name, distances, groups in (
        ("held-out factors", held_out, data.crops.patients),
        ("training factors", trained, patients),
    ):
        metrics += _metrics(name, distances, real, groups, data.seed)
    large = _large(data.training, size)
    number = sum(int(np.prod(np.subtract(entry.grid, size) + 1)) for entry in large)
    return EvaluationSection(
        title="Memorisation audit",
        description=DESCRIPTION.format(number=number, scans=len(large)),
        metrics=tuple(metrics),
        seed=data.seed,
    )


def _metrics(
    name: str, distances: np.ndarray, real: np.ndarray, patients: np.ndarray, seed: int
) -> list[Metric]:
    limit = np.percentile(real, NEAR_PERCENTILE)
    ratio = set_estimate(by_rows(lambda rows: distance_ratio(distances[rows], real)), patients, seed)
    near = set_estimate(by_rows(lambda rows: fraction_too_near(distances[rows], real)), patients, seed)
    copied = set_estimate(
        by_rows(lambda rows: float((distances[rows] < COPY * real.min()).mean())), patients, seed
    )
    comparison = f"medians {np.median(distances):.3f} and {np.median(real):.3f}"
    return [
        Metric(
            name=f"{name}: distance to training crops, relative to real crops",
            estimate=ratio,
            comparison=comparison,
        ),
        Metric(
            name=f"{name}: fraction below the 5th percentile of real crops",
            estimate=near,
            comparison=f"0.05 expected; percentile {limit:.3f}, nearest sample {distances.min():.3f}, real "
            f"{real.min():.3f}",
        ),
        Metric(
            name=f"{name}: fraction below half the distance of the nearest real crop (copies)",
            estimate=copied,
            at_most=0.0,
        ),
    ]


def _latents(entries: Sequence[FactorEntry], size: tuple[int, int, int]) -> Iterator[Tensor]:
    """Yield the latents of scans that are at least as large as a crop, one at a time."""
    for entry in _large(entries, size):
        yield entry.read((0, 0, 0), entry.grid)["mean"]


@torch.no_grad()
def _from_training_factors(data: EvaluationData) -> tuple[Float[Tensor, "N C x y z"], np.ndarray]:
    """Generate latents from pooled factors of training crops, half as many as held-out crops."""
    size = data.sampler.size
    entries = _large(data.training, size)
    source = FactorSource(entries, size, data.seed)
    choices = source.choose(0, max(len(data.crops) // 2, 2))
    batch = source.read(choices)
    latents = data.sampler.latents(
        CropConditions(noise=row, content=content, style=style)
        for row, (content, style) in enumerate(zip(batch["content"], batch["style"], strict=True))
    )
    return latents, np.array([entries[choice.scan].patient for choice in choices])


def _large(entries: Sequence[FactorEntry], size: tuple[int, int, int]) -> list[FactorEntry]:
    """Return the scans that are at least as large as a crop of `size` tokens."""
    return [entry for entry in entries if all(np.greater_equal(entry.grid, size))]
