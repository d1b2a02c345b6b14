"""Promises without tolerance: what must come back bit for bit."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from meduet_training.data.cohort.scans import Scan
from meduet_training.evaluation.metrics.estimates import mean_estimate
from meduet_training.evaluation.sections import Figure, Part
from napari_meduet.pipelines.requests import ScanChoice, SwapRequest
from napari_meduet.pipelines.swap.session import open_swap

HOW = (
    "The first CT and the first MR of the test split in the style of the first scan of their modality in "
    "the train split: share of scans of which every voxel, on their own grid, is the stored number."
)


def identity_part(model: Path, train: Sequence[Scan], test: Sequence[Scan], device: str, seed: int) -> Part:
    """Strength 0, own style, and what lies outside the profile."""
    contents = [next(scan for scan in test if scan.modality == modality) for modality in ("CT", "MR")]
    kept: dict[str, list[float]] = {"strength 0": [], "own style": [], "outside the profile's range": []}
    for content in contents:
        style = next(scan for scan in train if scan.modality == content.modality)
        choice = ScanChoice(modality=content.modality)
        options = {"model": model, "device": device, "content_choice": choice, "style_choice": choice}
        own = open_swap(SwapRequest(content.path, content.path, **options)).render(1.0)
        session = open_swap(SwapRequest(content.path, style.path, **options))
        none, full = session.render(0.0), session.render(1.0)
        prepared = session.measured.encoded.prepared
        before, outside = prepared.volume.voxels, ~prepared.profile.inside(prepared.values)
        kept["strength 0"].append(float(np.array_equal(none.volume.voxels, before)))
        kept["own style"].append(float(np.array_equal(own.volume.voxels, before)))
        is_untouched = np.array_equal(full.volume.voxels[outside], before[outside])
        has_changed = not np.array_equal(full.volume.voxels, before)
        kept["outside the profile's range"].append(float(is_untouched and has_changed))
    patients = [scan.patient for scan in contents]
    figures = [
        Figure(
            what=f"unchanged bit for bit: {what}",
            estimate=mean_estimate(values, patients, seed),
            at_least=1.0,
            beside="at strength 1, while voxels inside it change" if "outside" in what else "",
        )
        for what, values in kept.items()
    ]
    return Part(title="Identities", how=HOW, figures=tuple(figures), seed=seed)
