"""Data of the evaluation of a generator: held-out crops, the domain probe, and the generated samples."""

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
from meduet_training.evaluation.synthesis.generated_crops import ConditionalSampler, CropConditions, decoded
from meduet_training.evaluation.synthesis.real_crops import RealCrops, sample_crops
from meduet_training.evaluation.synthesis.target_styles import DomainProbe, TargetStyles, draw_target_styles
from napari_meduet.errors import InputError
from napari_meduet.models.model import Model


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationData:
    """Crops of held-out scans, and samples that the generator makes from them.

    Samples are generated when they are first used, and kept.

    Attributes:
        crops: N crops of the test split, which are references and conditions.
        others: N other crops of the same scans. The probe is fitted to them, and they show the distance of
            two samples of one distribution.
        training: factors of the training scans of the generator.
    """

    sampler: ConditionalSampler
    extractor: VolumeExtractor
    crops: RealCrops
    others: RealCrops
    training: Sequence[FactorEntry]
    seed: int

    @property
    def model(self) -> Model:
        return self.sampler.model

    @cached_property
    def reconstructed(self) -> Float[Tensor, "N X Y Z"]:
        """The crops after encoding and decoding, which no generator can surpass."""
        return decoded(self.model, self.crops.latent)

    @cached_property
    def target_styles(self) -> TargetStyles:
        """A style of another domain for each crop."""
        return draw_target_styles(self.crops, self.seed)

    @cached_property
    def probe(self) -> DomainProbe:
        """The probe of the domain, fitted to the reconstructions of the other crops."""
        volumes = decoded(self.model, self.others.latent)
        return DomainProbe.fit(PYRAMID.features(volumes), self.others.domains)

    @cached_property
    def paired(self) -> Float[Tensor, "N C x y z"]:
        """A generated latent for each crop, from its own pooled content and style."""
        return self.sampler.latents(
            CropConditions(noise=row, content=self.crops.content[row], style=self.crops.style[row])
            for row in range(len(self.crops))
        )

    @cached_property
    def paired_volumes(self) -> Float[Tensor, "N X Y Z"]:
        return decoded(self.model, self.paired)

    @cached_property
    def in_target_style(self) -> Float[Tensor, "N C x y z"]:
        """A generated latent for each target style, with the spatial content of the crop."""
        return self.sampler.latents(self.conditions(self.target_styles))

    @cached_property
    def in_target_style_volumes(self) -> Float[Tensor, "N X Y Z"]:
        return decoded(self.model, self.in_target_style)

    def conditions(
        self, target_styles: TargetStyles, *, with_content: bool = True, with_style: bool = True
    ) -> list[CropConditions]:
        """Return the conditions of samples in target styles; samples of one content have the same noise."""
        return [
            CropConditions(
                noise=int(content),
                content=self.crops.content[content] if with_content else None,
                tokens=self.crops.spatial_content[content] if with_content else None,
                style=self.crops.style[style] if with_style else None,
            )
            for content, style in zip(target_styles.content, target_styles.style, strict=True)
        ]


def build_evaluation_data(
    sampler: ConditionalSampler,
    extractor: VolumeExtractor,
    data: Path,
    cache: Path,
    count: int,
    seed: int,
    report: Callable[[str], None],
) -> EvaluationData:
    """Read the scans of the cohort, and encode those that are not in the cache.

    Args:
        data: the manifest of the cohort.
        cache: folder of the factors of the scans.
        count: number of held-out crops.
        report: called with a line of progress for each scan.

    Raises:
        InputError: the test split is empty, its scans are smaller than a generated crop, or no crop has a
            compatible target style.
    """
    cohort = read_cohort(data)
    held_out = [scan for scan in cohort if scan.split == "test"]
    if not held_out:
        raise InputError(
            f"{data.name}: no scan has the split 'test'. A generator is evaluated on patients outside its "
            "training; set the split of some scans to 'test'."
        )
    train = trainable(cohort)

    def on_scan(kind: str) -> Callable[[int, int], None]:
        return lambda number, of: report(f"Factors of {kind} scan {number + 1} of {of}")

    training = cache_factors(sampler.model, train, cache, on_scan("training"))
    entries = cache_factors(sampler.model, held_out, cache, on_scan("held-out"))
    both = sample_crops(sampler.model, held_out, entries, sampler.size, 2 * count, seed)
    even, odd = np.arange(0, 2 * count, 2), np.arange(1, 2 * count, 2)
    evaluation_data = EvaluationData(
        sampler=sampler,
        extractor=extractor,
        crops=both.rows(even),
        others=both.rows(odd),
        training=training,
        seed=seed,
    )
    _ = evaluation_data.target_styles  # raises before any sample is generated
    return evaluation_data
