"""The memorisation audit of a generator (specification, section 13): are its samples training scans?"""

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
    nearest_distances,
    share_too_near,
)
from meduet_training.evaluation.metrics.set_estimates import set_estimate
from meduet_training.evaluation.sections import Figure, Part
from meduet_training.evaluation.synthesis.generated_crops import Wanted
from meduet_training.evaluation.synthesis.material import Material
from meduet_training.evaluation.synthesis.quality import by_rows

HOW = (
    "Distance of each generated crop to the nearest of all {number} crops of the {scans} training scans "
    "(every place along tokens; root mean square over the standardised latent), beside that of real "
    "held-out crops. A ratio far below 1, or many crops nearer than the 5th percentile of the real ones "
    "(0.05 where nothing is copied), would be copies. Samples asked for with the pooled factors of "
    "held-out scans, and, the harder test, with those of crops the generator was trained on. A generator "
    "that makes smooth crops is nearer to everything: the nearest single crop is given too. Turned and "
    "mirrored copies are not looked for."
)
COPY = 0.5  # of the smallest real distance: nearer than this is called a copied scan


def memory_part(material: Material) -> Part:
    """Nearest neighbours among the training crops."""
    patch, size = material.model.meduet.config.patch_size, material.maker.size
    real = nearest_distances(material.crops.latent, _latents(material.training, size), patch)
    held_out = nearest_distances(material.paired, _latents(material.training, size), patch)
    asked, patients = _asked_for_training(material)
    trained = nearest_distances(asked, _latents(material.training, size), patch)
    figures: list[Figure] = []
    for name, found, whose in (
        ("held-out factors", held_out, material.crops.patients),
        ("training factors", trained, patients),
    ):
        figures += _figures(name, found, real, whose, material.seed)
    large = _large(material.training, size)
    number = sum(int(np.prod(np.subtract(entry.grid, size) + 1)) for entry in large)
    return Part(
        title="Memorisation audit",
        how=HOW.format(number=number, scans=len(large)),
        figures=tuple(figures),
        seed=material.seed,
    )


def _figures(name: str, found: np.ndarray, real: np.ndarray, patients: np.ndarray, seed: int) -> list[Figure]:
    limit = np.percentile(real, NEAR_PERCENTILE)
    ratio = set_estimate(by_rows(lambda rows: distance_ratio(found[rows], real)), patients, seed)
    share = set_estimate(by_rows(lambda rows: share_too_near(found[rows], real)), patients, seed)
    copied = set_estimate(
        by_rows(lambda rows: float((found[rows] < COPY * real.min()).mean())), patients, seed
    )
    beside = f"medians {np.median(found):.3f} and {np.median(real):.3f}"
    return [
        Figure(what=f"{name}: distance to training, over that of real crops", estimate=ratio, beside=beside),
        Figure(
            what=f"{name}: share nearer than the 5th percentile of real crops",
            estimate=share,
            beside=f"0.05 expected; percentile {limit:.3f}, nearest generated {found.min():.3f}, real "
            f"{real.min():.3f}",
        ),
        Figure(
            what=f"{name}: share nearer than half of the nearest real crop (copies)",
            estimate=copied,
            at_most=0.0,
        ),
    ]


def _latents(entries: Sequence[FactorEntry], size: tuple[int, int, int]) -> Iterator[Tensor]:
    """Whole latents that hold a crop, one in memory at a time."""
    for entry in _large(entries, size):
        yield entry.read((0, 0, 0), entry.grid)["mean"]


@torch.no_grad()
def _asked_for_training(material: Material) -> tuple[Float[Tensor, "N C x y z"], np.ndarray]:
    """Latents asked for with pooled factors of training crops, half as many as there are held-out crops."""
    size = material.maker.size
    entries = _large(material.training, size)
    source = FactorSource(entries, size, material.seed)
    choices = source.choose(0, max(len(material.crops) // 2, 2))
    batch = source.read(choices)
    latents = material.maker.latents(
        Wanted(noise=row, content=content, style=style)
        for row, (content, style) in enumerate(zip(batch["content"], batch["style"], strict=True))
    )
    return latents, np.array([entries[choice.scan].patient for choice in choices])


def _large(entries: Sequence[FactorEntry], size: tuple[int, int, int]) -> list[FactorEntry]:
    """Scans that hold a crop of so many tokens."""
    return [entry for entry in entries if all(np.greater_equal(entry.grid, size))]
