"""Results of a trained segmenter on the labelled test scans, written once at the end of its run.

`meduet-evaluate segmentation` compares an exported segmenter with other methods
(evaluation/segmentation/evaluate.py).
"""

from collections.abc import Callable, Sequence

import torch

from meduet_training.data.caches.training_samples import prepared_scan
from meduet_training.data.labels.scans import LabelledScan
from meduet_training.data.labels.task import LabelTask
from meduet_training.evaluation.metrics.estimates import mean_estimate
from meduet_training.evaluation.metrics.segmentation_scores import (
    METRICS,
    Score,
    mean_over_structures,
    measure_structures,
)
from meduet_training.evaluation.metrics.surface_distance import TOLERANCE_MM
from meduet_training.evaluation.sections import EvaluationSection, Metric, Table
from napari_meduet.core.analysis.unetr import LatentUNETR
from napari_meduet.models.model import Model
from napari_meduet.pipelines.segmentation.session import segment_prepared

METHOD = "trained"
HOW = (
    "The weights of the best validation, on the labelled scans of the test split: Dice, and the fraction of "
    f"both surfaces within {TOLERANCE_MM:g} mm of the other (NSD), on the grid of each scan. A structure is "
    "measured if the truth is annotated for it and contains it. Confidence intervals resample patients."
)


@torch.inference_mode()
def measure_scans(
    model: Model,
    network: LatentUNETR,
    task: LabelTask,
    scans: Sequence[LabelledScan],
    on_scan: Callable[[int, int], None] = lambda number, of: None,
) -> list[Score]:
    """Return the scores of every structure in every scan whose truth contains it.

    Args:
        on_scan: called before each scan with the number of finished scans and the number of all scans.

    Raises:
        InputError: a scan or its labels cannot be read.
    """
    scores = []
    for number, scan in enumerate(scans):
        on_scan(number, len(scans))
        channels, labels = prepared_scan(model, scan)
        meaning, spacing_mm = task.meaning(scan.names), channels[0].volume.spacing_mm
        found = segment_prepared(model, network, channels)
        truth = meaning.target(labels)
        measured = measure_structures(found, truth, meaning.annotated, spacing_mm, TOLERANCE_MM)
        scores += [
            Score(
                method=METHOD,
                structure=task.names[k],
                scan=number + 1,
                domain=scan.first.domain,
                patient=scan.first.patient,
                overlap=overlap,
                surface=surface,
            )
            for k, (overlap, surface) in measured.items()
            if surface is not None
        ]
    return scores


def results_table(scores: Sequence[Score], names: Sequence[str], seed: int) -> EvaluationSection:
    """Return the mean of each structure and over structures, with confidence intervals, and all scans."""
    metrics = []
    for metric, of in METRICS.items():
        over_all = mean_over_structures(
            [of(score) for score in scores],
            [score.structure for score in scores],
            [score.patient for score in scores],
            seed,
        )
        metrics.append(Metric(name=f"{metric}: mean over structures", estimate=over_all))
        for name in names:
            own = [score for score in scores if score.structure == name]
            if own:
                found = mean_estimate([of(score) for score in own], [score.patient for score in own], seed)
                metrics.append(Metric(name=f"{metric}: {name}", estimate=found))
    rows = [
        (
            score.structure,
            str(score.scan),
            score.domain,
            score.dice,
            score.surface.nsd,
            score.overlap.truth_ml,
            score.overlap.predicted_ml,
        )
        for score in scores
    ]
    columns = ("structure", "scan", "domain", "Dice", "NSD", "true mL", "predicted mL")
    return EvaluationSection(
        title="Test scans",
        description=HOW,
        metrics=tuple(metrics),
        tables=(Table(title="Single scans", columns=columns, rows=rows),),
        seed=seed,
    )
