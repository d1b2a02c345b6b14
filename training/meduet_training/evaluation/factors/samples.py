"""Samples of a factor analysis: sub-volumes of scans, or validation crops of a latent cache."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from rich.progress import track

from meduet_training.data.caches.latent_spec import tokenizer_sha256
from meduet_training.data.caches.latents import CACHE_FILE
from meduet_training.data.cohort.scan import Scan
from meduet_training.data.cohort.scans import read_cohort
from meduet_training.data.sources.latents import CacheSource
from meduet_training.evaluation.card.subvolumes import MIN_BODY_FRACTION, Samples, real_samples
from meduet_training.evaluation.choices import SplitChoice
from meduet_training.evaluation.factors.analysis import FactorSamples
from meduet_training.evaluation.factors.validation import measure_crops
from napari_meduet.core.standardisation import LatentStandardisation
from napari_meduet.errors import InputError
from napari_meduet.models.model import Model


def collect_factor_samples(
    model: Model, data: Path, split: SplitChoice, count: int, seed: int, report: Callable[[str], None]
) -> FactorSamples:
    """Compute the pooled factors of the data.

    Args:
        data: a latent cache, a manifest, or a folder with an index.json.
        split: split of the scans of a manifest; a cache always gives crops of its test split.
        count: number of crops from a cache.
        seed: seed of the crops.
        report: called with a message for each scan that cannot be read.

    Raises:
        InputError: the data does not exist, does not match the network, or holds no usable sample.
    """
    if (data / CACHE_FILE).is_file():
        return _from_cache(model, data, split, count, seed)
    scans = [scan for scan in read_cohort(data) if split in ("all", scan.split)]
    if not scans:
        raise InputError(
            f"{data.name}: this list has no scan of the split '{split}'. Give --split all to use every "
            "scan; the metrics of training scans do not describe new scans."
        )
    return _from_scans(model, scans, split, report)


def _from_cache(model: Model, folder: Path, split: SplitChoice, count: int, seed: int) -> FactorSamples:
    if split != "test":
        raise InputError(
            f"{folder.name}: a latent cache gives only crops of its test split. Leave out --split."
        )
    source = CacheSource(folder, seed, side=model.meduet.config.latent_shape[1])
    if source.spec.tokenizer_sha256 != tokenizer_sha256(cast(Any, model.tokenizer)):
        raise InputError(
            f"{folder.name}: this cache was written by another tokenizer than that of the network. Give "
            "the manifest of the scans, or a cache of this tokenizer."
        )
    crops = source.validation_crops(count, seed)
    if not len(crops):
        raise InputError(
            f"{folder.name}: this cache has no scan of the test split. Give a manifest with --split all."
        )
    # the statistics of the cache and of the model come from different scans
    latent = LatentStandardisation.of_channels(*source.statistics()).restored(crops.latent)
    samples, _ = measure_crops(model.meduet, replace(crops, latent=model.standardised(latent)))
    return replace(samples, extractor_sha256=model.sha256)


def _from_scans(
    model: Model, scans: Sequence[Scan], split: SplitChoice, report: Callable[[str], None]
) -> FactorSamples:
    """Return the sub-volumes of every scan that can be read."""
    styles, contents, failed = [], [], 0
    for number, scan in enumerate(track(scans, description="Factors"), start=1):
        try:
            style, content = real_samples(model, [scan])
        except InputError as error:
            failed += 1
            report(f"Scan {number} of {len(scans)} is left out: {error}")
            continue
        styles.append(style)
        contents.append(content)
    if not any(len(style.domains) for style in styles):
        raise InputError(
            f"None of the {len(scans)} scans has a sub-volume with at least {MIN_BODY_FRACTION:.0%} of "
            "body. Give scans with a larger field of view."
        )
    style, content = Samples.concatenated(styles), Samples.concatenated(contents)
    source = f"Sub-volumes of {len(scans) - failed} scans of the split '{split}'"
    return FactorSamples(
        content=content.features.astype(np.float32),
        style=style.features.astype(np.float32),
        domains=style.domains,
        patients=style.patients,
        extractor_sha256=model.sha256,
        source=f"{source}, {failed} left out." if failed else f"{source}.",
    )
