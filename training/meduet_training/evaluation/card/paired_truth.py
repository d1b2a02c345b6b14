"""Sequences of one patient on one grid: the truth about what a change of style should give.

The T1 of one patient in the T2 style of another, against that patient's own T2. What it is measured against
learns from the other patient too: histogram matching sees its T2, the pointwise map its T1 *and* T2.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from meduet_training.data.cohort.scans import Scan
from meduet_training.evaluation.metrics.estimates import Estimate, estimate
from meduet_training.evaluation.sections import Figure, Part
from napari_meduet.pipelines.requests import ScanChoice, SwapRequest
from napari_meduet.pipelines.swap.session import swap
from napari_meduet.volumes.files import read_volume

SITE = "mr-brain-ljubljana-ms3t"  # the one site whose sequences lie on one grid
CHANGES = (("T1", "T2"), ("T1", "FLAIR"), ("FLAIR", "T2"))
SCALE = (1.0, 99.0)  # percentiles inside the brain
MAP_BINS = np.linspace(-0.2, 1.3, 151)
SMALLEST_BIN = 20  # voxels
HOW = (
    "One sequence of an unseen patient in the style of another sequence of a patient of the train split, "
    "against the unseen patient's own: mean absolute error, each scaled to its own 1–99 percentiles inside"
    " the brain. One patient: the interval is over slices and says nothing of other patients. Goal: below "
    "histogram matching. The pointwise map is supervised on the train patient's registered pair; so, in "
    "its training, was the model."
)


def paired_part(model: Path, train: Sequence[Scan], test: Sequence[Scan], device: str, seed: int) -> Part:
    """Each change of sequence beside what it must beat."""
    known, unseen = _sequences(train), _sequences(test)
    choice = ScanChoice(modality="MR")
    figures = []
    for source, target in CHANGES:
        request = SwapRequest(
            unseen[source].path,
            known[target].path,
            model=model,
            device=device,
            content_choice=choice,
            style_choice=choice,
        )
        result = swap(request).volume.values()
        content, truth, known_source, known_target = (
            read_volume(scan.path, modality="MR").values()
            for scan in (unseen[source], unseen[target], known[source], known[target])
        )
        brain, known_brain = (content > 0) & (truth > 0), (known_source > 0) & (known_target > 0)

        def error(values: np.ndarray) -> float:
            return float(np.abs(scaled(values) - scaled(truth[brain])).mean())  # noqa: B023 called in this turn

        matched = histogram_matched(content[brain], known_target[known_brain])
        mapping = (scaled(known_source[known_brain]), scaled(known_target[known_brain]))
        mapped = pointwise_mapped(scaled(content[brain]), *mapping)
        figures.append(
            Figure(
                what=f"{source} → {target}: mean absolute error",
                estimate=_error_over_slices(result, truth, brain, seed),
                at_most=error(matched),
                beside=f"{source} itself {error(content[brain]):.3f}, "
                f"histogram matching {error(matched):.3f}, best pointwise map {error(mapped):.3f}",
            )
        )
    return Part(title="Paired truth", how=HOW, figures=tuple(figures), seed=seed)


def scaled(values: np.ndarray) -> np.ndarray:
    """Values with their own 1st percentile at 0 and their 99th at 1."""
    low, high = np.percentile(values, SCALE)
    return (values - low) / (high - low)


def histogram_matched(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Values with the distribution of the reference, in their own order."""
    quantiles = np.linspace(0.0, 1.0, 4097)
    return np.interp(values, np.quantile(values, quantiles), np.quantile(reference, quantiles))


def pointwise_mapped(values: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Values through the map that errs least on registered voxels: the median target of each bin of source.

    Bins with too few voxels take what lies between their neighbours.
    """
    bins = np.digitize(source, MAP_BINS)
    filled = [k for k in range(len(MAP_BINS) + 1) if (bins == k).sum() >= SMALLEST_BIN]
    medians = np.interp(np.arange(len(MAP_BINS) + 1), filled, [np.median(target[bins == k]) for k in filled])
    return medians[np.digitize(values, MAP_BINS)]


def _sequences(scans: Sequence[Scan]) -> dict[str, Scan]:
    """The site's scans by sequence; the site has one patient in each split."""
    return {str(scan.sequence): scan for scan in scans if scan.domain == f"{SITE}-{scan.sequence}"}


def _error_over_slices(result: np.ndarray, truth: np.ndarray, brain: np.ndarray, seed: int) -> Estimate:
    """Mean absolute error inside the brain; its interval draws slices, which stand for patients here."""
    errors = np.zeros(brain.shape)
    errors[brain] = np.abs(scaled(result[brain]) - scaled(truth[brain]))
    totals, counts = errors.sum(axis=(0, 1)), brain.sum(axis=(0, 1))
    slices = np.flatnonzero(counts)
    return estimate(
        lambda indices: float(totals[slices[indices]].sum() / counts[slices[indices]].sum()),
        [f"slice {k}" for k in slices],
        seed,
    )
