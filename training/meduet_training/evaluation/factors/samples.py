"""Samples for a factor analysis: sub-volumes of a manifest's scans, or held-out crops of a cache."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from rich.progress import track

from meduet_training.data.caches.latents import CACHE_FILE
from meduet_training.data.cohort.scan import Scan
from meduet_training.data.cohort.scans import read_cohort
from meduet_training.data.sources.latents import CacheSource
from meduet_training.data.tokenizer_files import tokenizer_sha256
from meduet_training.evaluation.card.subvolumes import BODY_SHARE, Samples, real_samples
from meduet_training.evaluation.factors.analysis import FactorSamples
from meduet_training.evaluation.factors.validation import measure_crops
from napari_meduet.core.standardisation import LatentStandardisation
from napari_meduet.errors import InputError
from napari_meduet.models.model import Model

Split = Literal["test", "train", "all"]


def samples_of(
    model: Model, data: Path, split: Split, count: int, seed: int, say: Callable[[str], None]
) -> FactorSamples:
    """Pooled factors of the data.

    Args:
        data: a latent cache, a manifest, or a folder with an index.json.
        split: of a manifest's scans; a cache gives those of the test split.
        count: crops of a cache.
        say: hears which scans could not be read.

    Raises:
        InputError: there is no data, it does not fit the network, or nothing of it can be used.
    """
    if (data / CACHE_FILE).is_file():
        return _of_cache(model, data, split, count, seed)
    scans = [scan for scan in read_cohort(data) if split in ("all", scan.split)]
    if not scans:
        raise InputError(
            f"{data.name}: lists no scan of the split '{split}'; give --split all to take every scan, and "
            "keep in mind that figures on scans that were learned from say little."
        )
    return _of_scans(model, scans, split, say)


def _of_cache(model: Model, folder: Path, split: Split, count: int, seed: int) -> FactorSamples:
    if split != "test":
        raise InputError(f"{folder.name}: a cache gives crops of its test split alone; leave --split out.")
    source = CacheSource(folder, seed, side=model.meduet.config.latent_shape[1])
    if source.spec.tokenizer_sha256 != tokenizer_sha256(cast(Any, model.tokenizer)):
        raise InputError(
            f"{folder.name}: another tokenizer wrote this cache than the network learned from; give the "
            "scans' manifest, or the cache of this tokenizer."
        )
    crops = source.validation_crops(count, seed)
    if not len(crops):
        raise InputError(
            f"{folder.name}: no scan of this cache is of the test split, so nothing was held back; give a "
            "manifest with --split all."
        )
    # the cache and the model have statistics of different scans
    latent = LatentStandardisation.of_channels(*source.statistics()).restored(crops.latent)
    samples, _ = measure_crops(model.meduet, replace(crops, latent=model.standardised(latent)))
    return replace(samples, extractor_sha256=model.sha256)


def _of_scans(model: Model, scans: Sequence[Scan], split: Split, say: Callable[[str], None]) -> FactorSamples:
    """Sub-volumes of every scan that can be read."""
    styles, contents, failed = [], [], 0
    for number, scan in enumerate(track(scans, description="Factors"), start=1):
        try:
            style, content = real_samples(model, [scan])
        except InputError as error:
            failed += 1
            say(f"Scan {number} of {len(scans)} is left out: {error}")
            continue
        styles.append(style)
        contents.append(content)
    if not any(len(style.domains) for style in styles):
        raise InputError(f"None of the {len(scans)} scans gave a sub-volume with {BODY_SHARE:.0%} of body.")
    style, content = Samples.joined(styles), Samples.joined(contents)
    source = f"Sub-volumes of {len(scans) - failed} scans of the split '{split}'"
    return FactorSamples(
        content=content.features.astype(np.float32),
        style=style.features.astype(np.float32),
        domains=style.domains,
        patients=style.patients,
        extractor_sha256=model.sha256,
        source=f"{source}, {failed} left out." if failed else f"{source}.",
    )
