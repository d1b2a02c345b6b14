"""`meduet-evaluate segmentation`: a segmenter on labelled test scans, beside others and simple baselines.

Every method answers for every scan, one scan in memory at a time. What is judged is what the truth of a scan
names: other structures in it are nobody's business, and structures that the segmenter lacks are listed.
"""

import json
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
from meduet_training.evaluation.metrics.segmentation_scores import Score, measured_structures
from meduet_training.evaluation.sections import write_section
from meduet_training.evaluation.segmentation.methods import (
    Method,
    atlas_method,
    network_method,
    open_networks,
    threshold_method,
)
from meduet_training.evaluation.segmentation.report import SegmentationEvaluation, Setting, reported
from meduet_training.tasks.segmenter.config import read_segmenter_run
from napari_meduet.errors import InputError
from napari_meduet.models.card import SegmenterCard
from napari_meduet.models.model import Model
from napari_meduet.models.saving import save_metrics
from napari_meduet.volumes.files import write_atomically
from napari_meduet.volumes.volume import Volume

SEGMENTATION_JSON, SEGMENTATION_MARKDOWN = "segmentation.json", "segmentation.md"
SECTION = "segmentation"  # of a document


@dataclass(frozen=True, kw_only=True)
class SegmentationQuestion:
    """What to evaluate, and how.

    Attributes:
        data: the list of scans; its labelled test scans judge, its labelled train scans are the atlases.
        names: a file that names the labels, where the list does not.
        config: that the segmenter was trained by: it says which labels of the truth are joined to classes,
            and which sequences are seen together.
        against: other models with segmenters.
        baselines: whether the threshold and the atlases are tried too.
    """

    model: Path
    data: Path
    names: Path | None
    config: Path | None
    against: tuple[Path, ...]
    baselines: bool
    tolerance_mm: float
    seed: int
    device: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmented:
    """A test scan as every method segmented it.

    Attributes:
        number: from 1.
        truth: class of each voxel on the scan's own grid.
        found: the same, by method; a method that knows nothing of such a scan is left out.
        known: of each class, whether the method knows it.
    """

    number: int
    scan: LabelledScan
    volume: Volume
    truth: np.ndarray
    found: dict[str, np.ndarray]
    known: dict[str, tuple[bool, ...]]


def evaluate_segmentation(
    question: SegmentationQuestion,
    say: Callable[[str], None],
    on_segmented: Callable[[Segmented, LabelTask], object],
) -> SegmentationEvaluation:
    """Ask every method about every test scan, and judge the answers.

    Args:
        on_segmented: is shown each scan before the next is read.

    Raises:
        InputError: model, list or labels cannot be used, or no test scan has a structure of the segmenter.
    """
    networks = open_networks((question.model, *question.against), question.device)
    model, name = networks[0]
    card = model.card.segmenter
    assert card is not None, "open_networks refuses models without"
    joined, sequences = _configured(question)
    task = _task(card, joined)
    cohort = [scan for scan in read_cohort(question.data) if scan.modality in card.modalities]
    tests = _labelled(question, task, cohort, sequences, "test")
    methods = [network_method(each, called, prepared_by=model) for each, called in networks]
    if question.baselines:
        atlases = _labelled(question, task, cohort, sequences, "train")
        methods += [threshold_method(), atlas_method(model, task, atlases)]
    scores: list[Score] = []
    absent: list[tuple[str, str, int, float]] = []
    for number, scan in enumerate(tests, start=1):
        segmented = _segmented(number, scan, model, task, methods, say)
        _judge(segmented, task, question.tolerance_mm, scores, absent)
        on_segmented(segmented, task)
    if not scores:
        raise InputError(
            f"{question.data.name}: no voxel in the labels of the test scans is of a structure that {name} "
            f"knows ({', '.join(task.sources)})."
        )
    setting = Setting(
        methods={method.name: method.origin for method in methods},
        tolerance_mm=question.tolerance_mm,
        seed=question.seed,
        num_scans=len(tests),
        num_patients=len({scan.first.patient for scan in tests}),
        not_covered=_not_covered(task, tests),
        not_judged=sorted(set(task.sources) - {score.structure for score in scores}),
        found_where_absent_ml=absent,
    )
    return reported(scores, list(task.sources), setting)


def write_evaluation(found: SegmentationEvaluation, folder: Path, document: Path | None) -> None:
    """Figures as JSON and as a page of tables; into a document where that is wanted."""
    for name, text in (
        (SEGMENTATION_JSON, json.dumps(found.as_data(), indent=2, allow_nan=False) + "\n"),
        (SEGMENTATION_MARKDOWN, found.as_markdown()),
    ):
        with write_atomically(folder / name, overwrite=True) as temporary:
            temporary.write_text(text, "utf-8")
    if document is not None:
        write_section(document, SECTION, found.as_markdown())


def put_on_card(found: SegmentationEvaluation, model: Path) -> None:
    """The figures, without single scans, as those of the model's segmenter."""
    save_metrics(model, found.as_card_data(), of="segmenter")


def _configured(question: SegmentationQuestion) -> tuple[Mapping[str, Sequence[str]], Sequence[str]]:
    """The names that each class joins, and the sequences that are seen together."""
    if question.config is None:
        return {}, ()
    given = {"data": {"model": str(question.model), "scans": str(question.data)}}
    data = read_segmenter_run(question.config, given).data
    return data.classes or {}, data.sequences


def _task(card: SegmenterCard, joined: Mapping[str, Sequence[str]]) -> LabelTask:
    """The model's classes, and the names of labels that count as them, their own among these."""
    names = [each.name for each in card.classes[1:]]
    return LabelTask(
        labels=tuple(each.label for each in card.classes),
        sources={name: tuple(dict.fromkeys((name, *joined.get(name, ())))) for name in names},
    )


def _labelled(
    question: SegmentationQuestion,
    task: LabelTask,
    cohort: Sequence[Scan],
    sequences: Sequence[str],
    split: Split,
) -> list[LabelledScan]:
    """The scans of a split in whose labels somebody looked for a structure of the task.

    Raises:
        InputError: there is none.
    """
    scans = [scan for scan in cohort if scan.split == split]
    labelled = labelled_scans(question.data, scans, question.names, sequences)
    fitting = [scan for scan in labelled if any(task.meaning(scan.names).annotated[1:])]
    if fitting:
        return fitting
    if labelled:
        known = sorted({name for scan in labelled for name in scan.names.values()})
        raise InputError(
            f"{question.data.name}: the labels of its {split} scans name {', '.join(known)}; the segmenter "
            f"knows {', '.join(task.sources)}. Give --config to join names, or --names to name labels."
        )
    raise InputError(
        f"{question.data.name}: no scan of the split {split!r} and of the segmenter's modality has labels. A "
        "segmenter is judged by labelled scans of patients that it never saw (test); atlases are those of "
        "others (train)."
    )


def _segmented(
    number: int,
    scan: LabelledScan,
    model: Model,
    task: LabelTask,
    methods: Sequence[Method],
    say: Callable[[str], None],
) -> Segmented:
    """A test scan with the answer of each method."""
    prepared, labels = prepared_scan(model, scan)
    truth, volume = task.meaning(scan.names).target(labels), prepared[0].volume
    found, known = {}, {}
    for method in methods:
        began = time.monotonic()
        answer = method.answer(scan, prepared)
        meaning = task.meaning(answer.names)
        if any(meaning.annotated[1:]):
            found[method.name], known[method.name] = meaning.target(answer.labels), meaning.annotated
        say(f"Scan {number}: {method.name}, {time.monotonic() - began:.0f} s")
    return Segmented(number=number, scan=scan, volume=volume, truth=truth, found=found, known=known)


def _judge(
    segmented: Segmented,
    task: LabelTask,
    tolerance_mm: float,
    scores: list[Score],
    absent: list[tuple[str, str, int, float]],
) -> None:
    """Append the scores of a scan, and what was found of structures that it does not hold."""
    looked_for = task.meaning(segmented.scan.names).annotated
    first = segmented.scan.first
    for method, found in segmented.found.items():
        judged = [true and own for true, own in zip(looked_for, segmented.known[method], strict=True)]
        spacing = segmented.volume.spacing_mm
        for k, measured in measured_structures(found, segmented.truth, judged, spacing, tolerance_mm).items():
            if measured.surface is None:
                absent.append((method, task.names[k], segmented.number, measured.overlap.found_ml))
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
    """Names in the truth that are no class's."""
    known = {source for sources in task.sources.values() for source in sources}
    return sorted({name for scan in tests for name in scan.names.values()} - known)
