"""`meduet-evaluate segmentation`: a segmenter on labelled test scans, with comparisons.

Every method segments every scan, with one scan in memory at a time. A structure is scored if the labels of
the scan name it. Structures of the truth that the segmenter lacks are listed. methods.py beside this file
holds the methods, report.py the metrics.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from meduet_training.data.caches.training_samples import prepared_scan
from meduet_training.data.cohort.scan import Scan, Split
from meduet_training.data.cohort.scans import read_cohort
from meduet_training.data.labels.scans import LabelledScan, labelled_scans
from meduet_training.data.labels.task import LabelTask
from meduet_training.evaluation.metrics.segmentation_scores import Score, measure_structures
from meduet_training.evaluation.segmentation.methods import (
    Method,
    atlas_method,
    open_networks,
    segmenter_method,
    threshold_method,
)
from meduet_training.evaluation.segmentation.report import (
    EvaluationSettings,
    SegmentationEvaluation,
    summarise,
)
from napari_meduet.errors import InputError
from napari_meduet.models.card import SegmenterCard
from napari_meduet.models.model import Model
from napari_meduet.volumes.volume import Volume

NAME = "segmentation"  # of the output files and of the section in a document


@dataclass(frozen=True, kw_only=True)
class SegmentationOptions:
    """Options of the evaluation of a segmenter.

    Attributes:
        model: folder of a model with a segmenter.
        data: the list of scans. Labelled scans of the test split are evaluated, those of the train split are
            atlases.
        names: file with the names of the labels, if the list has none.
        joined_labels: names of the labels that belong to each class, besides the name of the class.
        sequences: sequences that the segmenter reads together.
        against: other models with segmenters.
        baselines: whether the threshold and the atlases are evaluated too.
        tolerance_mm: tolerance of NSD.
    """

    model: Path
    data: Path
    names: Path | None
    joined_labels: Mapping[str, Sequence[str]]
    sequences: Sequence[str]
    against: tuple[Path, ...]
    baselines: bool
    tolerance_mm: float
    seed: int
    device: str


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentedScan:
    """A test scan with its labels and the prediction of every method.

    Attributes:
        number: number of the scan, from 1.
        truth: class of each voxel on the grid of the scan.
        predicted: class of each voxel, by method; a method that knows no class of the scan is left out.
        known: whether each class is known, by method.
    """

    number: int
    scan: LabelledScan
    volume: Volume
    truth: np.ndarray
    predicted: dict[str, np.ndarray]
    known: dict[str, tuple[bool, ...]]


def evaluate_segmentation(
    options: SegmentationOptions,
    report: Callable[[str], None],
    on_segmented: Callable[[SegmentedScan, LabelTask], object],
) -> SegmentationEvaluation:
    """Segment every test scan with every method, and score the predictions.

    Args:
        report: called with lines of progress.
        on_segmented: called with each scan before the next one is read.

    Raises:
        InputError: model, list or labels cannot be used, or no test scan holds a structure of the segmenter.
    """
    networks = open_networks((options.model, *options.against), options.device)
    model, name = networks[0]
    card = model.card.segmenter
    assert card is not None, "open_networks accepts only models with a segmenter"
    task = _task(card, options.joined_labels)
    cohort = [scan for scan in read_cohort(options.data) if scan.modality in card.modalities]
    tests = _labelled(options, task, cohort, "test")
    methods = [segmenter_method(each, each_name, prepared_by=model) for each, each_name in networks]
    if options.baselines:
        atlases = _labelled(options, task, cohort, "train")
        methods += [threshold_method(), atlas_method(model, task, atlases)]
    scores: list[Score] = []
    false_positives_ml: list[tuple[str, str, int, float]] = []
    for number, scan in enumerate(tests, start=1):
        segmented = _segmented(number, scan, model, task, methods, report)
        _score(segmented, task, options.tolerance_mm, scores, false_positives_ml)
        on_segmented(segmented, task)
    if not scores:
        raise InputError(
            f"{options.data.name}: the labels of the test scans hold no voxel of the classes of {name} "
            f"({', '.join(task.sources)}). Give --config to join labels to classes, or other test scans."
        )
    settings = EvaluationSettings(
        methods={method.name: method.origin for method in methods},
        tolerance_mm=options.tolerance_mm,
        seed=options.seed,
        num_scans=len(tests),
        num_patients=len({scan.first.patient for scan in tests}),
        not_covered=_not_covered(task, tests),
        not_evaluated=sorted(set(task.sources) - {score.structure for score in scores}),
        false_positives_ml=false_positives_ml,
    )
    return summarise(scores, list(task.sources), settings)


def _task(card: SegmenterCard, joined: Mapping[str, Sequence[str]]) -> LabelTask:
    """Return the classes of the model, with the names of the labels that belong to each of them."""
    names = [each.name for each in card.classes[1:]]
    return LabelTask(
        labels=tuple(each.label for each in card.classes),
        sources={name: tuple(dict.fromkeys((name, *joined.get(name, ())))) for name in names},
    )


def _labelled(
    options: SegmentationOptions,
    task: LabelTask,
    cohort: Sequence[Scan],
    split: Split,
) -> list[LabelledScan]:
    """Return the scans of a split whose labels name a structure of the task.

    Raises:
        InputError: there are none.
    """
    scans = [scan for scan in cohort if scan.split == split]
    labelled = labelled_scans(options.data, scans, options.names, options.sequences)
    usable = [scan for scan in labelled if any(task.meaning(scan.names).annotated[1:])]
    if usable:
        return usable
    if labelled:
        known = sorted({name for scan in labelled for name in scan.names.values()})
        raise InputError(
            f"{options.data.name}: the labels of its {split} scans name {', '.join(known)}; the segmenter "
            f"knows {', '.join(task.sources)}. Give --config to join labels to classes, or --names to name "
            "labels."
        )
    raise InputError(
        f"{options.data.name}: no scan of the split {split!r} with the modality of the segmenter has "
        "labels. The evaluation needs labelled scans of patients outside the training (split test), and "
        "labelled scans of the train split for the atlases."
    )


def _segmented(
    number: int,
    scan: LabelledScan,
    model: Model,
    task: LabelTask,
    methods: Sequence[Method],
    report: Callable[[str], None],
) -> SegmentedScan:
    """Segment a test scan with each method."""
    prepared, labels = prepared_scan(model, scan)
    truth, volume = task.meaning(scan.names).target(labels), prepared[0].volume
    predicted, known = {}, {}
    for method in methods:
        start = time.monotonic()
        prediction = method.predict(scan, prepared)
        meaning = task.meaning(prediction.names)
        if any(meaning.annotated[1:]):
            predicted[method.name] = meaning.target(prediction.labels)
            known[method.name] = meaning.annotated
        report(f"Scan {number}: {method.name}, {time.monotonic() - start:.0f} s")
    return SegmentedScan(
        number=number, scan=scan, volume=volume, truth=truth, predicted=predicted, known=known
    )


def _score(
    segmented: SegmentedScan,
    task: LabelTask,
    tolerance_mm: float,
    scores: list[Score],
    false_positives_ml: list[tuple[str, str, int, float]],
) -> None:
    """Append the scores of a scan, and the predicted volumes of structures that the scan does not hold."""
    annotated = task.meaning(segmented.scan.names).annotated
    first = segmented.scan.first
    for method, predicted in segmented.predicted.items():
        evaluated = [
            in_truth and in_method
            for in_truth, in_method in zip(annotated, segmented.known[method], strict=True)
        ]
        spacing = segmented.volume.spacing_mm
        measurements = measure_structures(predicted, segmented.truth, evaluated, spacing, tolerance_mm)
        for k, measured in measurements.items():
            if measured.surface is None:
                false_positives_ml.append(
                    (method, task.names[k], segmented.number, measured.overlap.predicted_ml)
                )
                continue
            scores.append(
                Score(
                    method=method,
                    structure=task.names[k],
                    scan=segmented.number,
                    domain=first.domain,
                    patient=first.patient,
                    overlap=measured.overlap,
                    surface=measured.surface,
                )
            )


def _not_covered(task: LabelTask, tests: Sequence[LabelledScan]) -> list[str]:
    """Return the names of the truth that belong to no class."""
    known = {source for sources in task.sources.values() for source in sources}
    return sorted({name for scan in tests for name in scan.names.values()} - known)
