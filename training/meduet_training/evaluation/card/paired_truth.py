"""Swaps between sequences with a known result: several sequences of one patient on one grid.

The T1 of one patient is swapped with the T2 style of another patient and compared with the T2 of the first
patient. The baselines use the other patient too: histogram matching uses its T2, and the pointwise map its T1
*and* T2.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from meduet_training.data.cohort.scans import Scan
from meduet_training.evaluation.metrics.estimates import Estimate, estimate
from meduet_training.evaluation.sections import EvaluationSection, Metric
from napari_meduet.pipelines.requests import ScanChoice, SwapRequest
from napari_meduet.pipelines.style_swap.session import swap
from napari_meduet.volumes.files import read_volume

SITE = "mr-brain-ljubljana-ms3t"  # the only site with all sequences on one grid
CHANGES = (("T1", "T2"), ("T1", "FLAIR"), ("FLAIR", "T2"))
SCALE = (1.0, 99.0)  # percentiles inside the brain
MAP_BINS = np.linspace(-0.2, 1.3, 151)
MIN_BIN_VOXELS = 20
DESCRIPTION = (
    "One sequence of a test patient is swapped with the style of another sequence of a train patient and "
    "compared with the test patient's own scan of that sequence. The value is the mean absolute error "
    "inside the brain, each image scaled to its own 1st to 99th percentile. There is one test patient, so "
    "the interval is over slices and does not describe other patients. The goal is an error below "
    "histogram matching. The pointwise map is fitted to the registered pair of the train patient; the "
    "model was trained with it too."
)


def paired_section(
    model: Path, train: Sequence[Scan], test: Sequence[Scan], device: str, seed: int
) -> EvaluationSection:
    """Measure each change of sequence, and its baselines."""
    known, unseen = _sequences(train), _sequences(test)
    choice = ScanChoice(modality="MR")
    metrics = []
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
            return float(np.abs(scaled(values) - scaled(truth[brain])).mean())  # noqa: B023 called in this iteration

        matched = histogram_matched(content[brain], known_target[known_brain])
        mapping = (scaled(known_source[known_brain]), scaled(known_target[known_brain]))
        mapped = pointwise_mapped(scaled(content[brain]), *mapping)
        metrics.append(
            Metric(
                name=f"{source} → {target}: mean absolute error",
                estimate=_error_over_slices(result, truth, brain, seed),
                at_most=error(matched),
                comparison=f"{source} itself {error(content[brain]):.3f}, "
                f"histogram matching {error(matched):.3f}, best pointwise map {error(mapped):.3f}",
            )
        )
    return EvaluationSection(title="Paired truth", description=DESCRIPTION, metrics=tuple(metrics), seed=seed)


def scaled(values: np.ndarray) -> np.ndarray:
    """Scale values linearly, so that their 1st percentile becomes 0 and their 99th becomes 1."""
    low, high = np.percentile(values, SCALE)
    return (values - low) / (high - low)


def histogram_matched(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Map values monotonically to the distribution of the reference."""
    quantiles = np.linspace(0.0, 1.0, 4097)
    return np.interp(values, np.quantile(values, quantiles), np.quantile(reference, quantiles))


def pointwise_mapped(values: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Map values with the pointwise map of least absolute error: the median target of each bin of the source.

    Bins with fewer than 20 voxels are interpolated from their neighbours.
    """
    bins = np.digitize(source, MAP_BINS)
    filled = [k for k in range(len(MAP_BINS) + 1) if (bins == k).sum() >= MIN_BIN_VOXELS]
    medians = np.interp(np.arange(len(MAP_BINS) + 1), filled, [np.median(target[bins == k]) for k in filled])
    return medians[np.digitize(values, MAP_BINS)]


def _sequences(scans: Sequence[Scan]) -> dict[str, Scan]:
    """Return the scans of the site by sequence; the site has one patient in each split."""
    return {str(scan.sequence): scan for scan in scans if scan.domain == f"{SITE}-{scan.sequence}"}


def _error_over_slices(result: np.ndarray, truth: np.ndarray, brain: np.ndarray, seed: int) -> Estimate:
    """Return the mean absolute error inside the brain, with an interval over slices instead of patients."""
    errors = np.zeros(brain.shape)
    errors[brain] = np.abs(scaled(result[brain]) - scaled(truth[brain]))
    totals, counts = errors.sum(axis=(0, 1)), brain.sum(axis=(0, 1))
    slices = np.flatnonzero(counts)
    return estimate(
        lambda indices: float(totals[slices[indices]].sum() / counts[slices[indices]].sum()),
        [f"slice {k}" for k in slices],
        seed,
    )
