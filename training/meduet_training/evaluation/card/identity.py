"""Identities that a swap must keep exactly: the voxels that must not change at all."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from meduet_training.data.cohort.scans import Scan
from meduet_training.evaluation.metrics.estimates import mean_estimate
from meduet_training.evaluation.sections import EvaluationSection, Metric
from napari_meduet.pipelines.requests import ScanChoice, SwapRequest
from napari_meduet.pipelines.style_swap.session import open_swap

HOW = (
    "The first CT and the first MR of the test split are swapped with the style of the first scan of their "
    "modality in the train split. The value is the fraction of scans whose voxels all equal the stored "
    "numbers, on the grid of the scan."
)


def identity_section(
    model: Path, train: Sequence[Scan], test: Sequence[Scan], device: str, seed: int
) -> EvaluationSection:
    """Measure swaps at strength 0, with the own style, and outside the range of the profile."""
    contents = [next(scan for scan in test if scan.modality == modality) for modality in ("CT", "MR")]
    is_kept: dict[str, list[float]] = {"strength 0": [], "own style": [], "outside the profile's range": []}
    for content in contents:
        style = next(scan for scan in train if scan.modality == content.modality)
        choice = ScanChoice(modality=content.modality)
        options = {"model": model, "device": device, "content_choice": choice, "style_choice": choice}
        own = open_swap(SwapRequest(content.path, content.path, **options)).render(1.0)
        session = open_swap(SwapRequest(content.path, style.path, **options))
        none, full = session.render(0.0), session.render(1.0)
        prepared = session.measured.encoded.prepared
        before, outside = prepared.volume.voxels, ~prepared.profile.inside(prepared.values)
        is_kept["strength 0"].append(float(np.array_equal(none.volume.voxels, before)))
        is_kept["own style"].append(float(np.array_equal(own.volume.voxels, before)))
        is_untouched = np.array_equal(full.volume.voxels[outside], before[outside])
        has_changed = not np.array_equal(full.volume.voxels, before)
        is_kept["outside the profile's range"].append(float(is_untouched and has_changed))
    patients = [scan.patient for scan in contents]
    metrics = [
        Metric(
            name=f"unchanged bit for bit: {identity}",
            estimate=mean_estimate(values, patients, seed),
            at_least=1.0,
            comparison="at strength 1; voxels inside the range change" if "outside" in identity else "",
        )
        for identity, values in is_kept.items()
    ]
    return EvaluationSection(title="Identities", description=HOW, metrics=tuple(metrics), seed=seed)
