"""What every part of a generator's evaluation works on: held-out crops, the probe, the samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from meduet_training.data.caches.factors import FactorEntry, cache_factors
from meduet_training.data.cohort.scans import read_cohort, trainable
from meduet_training.evaluation.metrics.volume_features import PYRAMID, VolumeExtractor
from meduet_training.evaluation.synthesis.generated_crops import CropMaker, Wanted, decoded
from meduet_training.evaluation.synthesis.real_crops import RealCrops, draw_crops
from meduet_training.evaluation.synthesis.target_styles import DomainProbe, TargetStyles, draw_target_styles
from napari_meduet.errors import InputError
from napari_meduet.models.model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """Held-out scans as crops, and the generator that is asked for the like.

    Attributes:
        crops: n of the test split, which the generator is compared with and conditioned on.
        others: as many other crops of the same scans: the probe learns from them, and they show how far apart
            two samples of one distribution lie.
        training: entries of the scans that the generator learned from.
    """

    maker: CropMaker
    extractor: VolumeExtractor
    crops: RealCrops
    others: RealCrops
    training: Sequence[FactorEntry]
    seed: int

    @property
    def model(self) -> Model:
        return self.maker.model

    @cached_property
    def reconstructed(self) -> Float[Tensor, "N X Y Z"]:
        """The crops through the tokenizer: as near as a generator can come."""
        return decoded(self.model, self.crops.latent)

    @cached_property
    def wishes(self) -> TargetStyles:
        return draw_target_styles(self.crops, self.seed)

    @cached_property
    def probe(self) -> DomainProbe:
        volumes = decoded(self.model, self.others.latent)
        return DomainProbe.fitted(PYRAMID.features(volumes), self.others.domains)

    @cached_property
    def paired(self) -> Float[Tensor, "N C x y z"]:
        """A latent for each crop, asked for by its own pooled content and style."""
        return self.maker.latents(
            Wanted(noise=row, content=self.crops.content[row], style=self.crops.style[row])
            for row in range(len(self.crops))
        )

    @cached_property
    def paired_volumes(self) -> Float[Tensor, "N X Y Z"]:
        return decoded(self.model, self.paired)

    @cached_property
    def restyled(self) -> Float[Tensor, "N C x y z"]:
        """A latent for each wish: the content of every place of one crop, the style of another domain."""
        return self.maker.latents(self.wanted(self.wishes))

    @cached_property
    def restyled_volumes(self) -> Float[Tensor, "N X Y Z"]:
        return decoded(self.model, self.restyled)

    def wanted(
        self, wishes: TargetStyles, *, with_content: bool = True, with_style: bool = True
    ) -> list[Wanted]:
        """The wishes with the same anatomy; the noise is that of the crop whose content is asked for."""
        return [
            Wanted(
                noise=int(content),
                content=self.crops.content[content] if with_content else None,
                tokens=self.crops.spatial_content[content] if with_content else None,
                style=self.crops.style[style] if with_style else None,
            )
            for content, style in zip(wishes.content, wishes.style, strict=True)
        ]


def gather_material(
    maker: CropMaker,
    extractor: VolumeExtractor,
    data: Path,
    cache: Path,
    count: int,
    seed: int,
    say: Callable[[str], None],
) -> Material:
    """Read the cohort's scans, or what the cache holds of them.

    Raises:
        InputError: the test split is empty, too small for crops of the generator's size, or no style in it
            can be changed.
    """
    cohort = read_cohort(data)
    held_out = [scan for scan in cohort if scan.split == "test"]
    if not held_out:
        raise InputError(
            f"{data.name}: no scan is of the split 'test'; a generator is judged by patients it never saw."
        )
    learned = trainable(cohort)

    def heard(what: str) -> Callable[[int, int], None]:
        return lambda number, of: say(f"Factors of {what} scan {number + 1} of {of}")

    training = cache_factors(maker.model, learned, cache, heard("training"))
    entries = cache_factors(maker.model, held_out, cache, heard("held-out"))
    both = draw_crops(maker.model, held_out, entries, maker.size, 2 * count, seed)
    even, odd = np.arange(0, 2 * count, 2), np.arange(1, 2 * count, 2)
    material = Material(
        maker=maker,
        extractor=extractor,
        crops=both.rows(even),
        others=both.rows(odd),
        training=training,
        seed=seed,
    )
    _ = material.wishes  # refuses a cohort whose styles cannot be changed before anything is generated
    return material
