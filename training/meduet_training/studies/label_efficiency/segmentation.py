"""The segmentation task of a label-efficiency study. tasks/segmenter/run.py trains the runs."""

from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from meduet_training.data.cohort.scans import read_cohort, trainable
from meduet_training.data.labels.scans import LabelledScan
from meduet_training.data.labels.task import LabelTask
from meduet_training.evaluation.metrics.segmentation_scores import METRICS
from meduet_training.evaluation.metrics.surface_distance import TOLERANCE_MM
from meduet_training.evaluation.run_results import read_metrics
from meduet_training.studies.label_efficiency.task import check_base
from meduet_training.tasks.finetuning.objectives import SegmentationConfig
from meduet_training.tasks.finetuning.requested_scans import requested_scans
from meduet_training.tasks.finetuning.shared import style_bank
from meduet_training.tasks.segmenter.config import SegmenterRun
from meduet_training.tasks.segmenter.run import (
    adapt_to_labels,
    labelled_train_scans,
    run_segmenter,
    scans_in_test_split,
)
from napari_meduet.errors import InputError
from napari_meduet.models.loading import load_model
from napari_meduet.volumes.files import read_volume

OVER_ALL = ": mean over structures"  # suffix of the names of the means in tasks/segmenter/results.py


class SegmentationStudy:
    """Segmentation of structures (`StudyTask`).

    Raises:
        InputError: there are no labels to train on, or no labels to test on.
    """

    patients_per_class = 1
    metrics = tuple(METRICS)

    def __init__(self, run: SegmenterRun) -> None:
        check_base(run)
        self._model = load_model(run.data.model, "cpu")
        self._cohort = requested_scans(read_cohort(run.data.scans), run.data)
        self._learnable = trainable(self._cohort)
        self._task, self._scans = labelled_train_scans(run, self._learnable)
        modalities = {scan.first.modality for scan in self._scans}
        tests = scans_in_test_split(
            run, self._task, [scan for scan in self._cohort if scan.modality in modalities]
        )
        tested = {name for scan in tests for name in _present_classes(self._task, scan)}
        if not tested:
            raise InputError(
                f"{run.data.scans.name}: no test scan has labels of the classes, so the runs cannot be "
                "compared. Add labelled scans to the test split, or give --unseen with a labelled domain."
            )
        # a subset may lack some classes, but every run has the same classes
        data = run.data.model_copy(update={"classes": self._task.sources})
        training = replace(run.training, model_sha256=self._model.sha256)
        self.base = run.model_copy(update={"data": data, "training": training})
        self.patients = tuple(sorted({scan.first.patient for scan in self._scans}))
        self.classes = self._task.names[1:]
        self.classes_of = cache(self._classes_of)
        self.about = {
            "task": "segmentation",
            "model": self._model.card.name,
            "model_sha256": self._model.sha256,
            "steps": run.training.total_steps,
            "classes": [name for name in self.classes if name in tested],
            "scans_in_test_split": len(tests),
            "test_patients": len({scan.first.patient for scan in tests}),
            "test_domains": sorted({scan.first.domain for scan in tests}),
            "score_of_a_run": "mean over classes of means over test scans",
            "nsd_tolerance_mm": TOLERANCE_MM,
        }

    def check(self, run: Any) -> None:
        """Check that a run can be trained."""
        training = adapt_to_labels(run, self._model, self._task, self._scans, self._learnable)
        if run.styles == "off":
            return
        if cast(SegmentationConfig, training.objective).augmentation is None:
            raise InputError(
                "A segmenter that reads several sequences together cannot use style augmentation. Leave "
                "meduet+style out of --arms."
            )
        style_bank(self._model, self._cohort, {scan.first.modality for scan in self._scans})

    def train(self, run: Any, folder: Path) -> None:
        """Train a run, or resume it."""
        run_segmenter(run, folder)

    def scores(self, folder: Path) -> dict[str, float]:
        """Return Dice and NSD over all structures, and of each structure."""
        return {name.removesuffix(OVER_ALL): value for name, value in read_metrics(folder).items()}

    def _classes_of(self, patient: str) -> AbstractSet[str]:
        own = [scan for scan in self._scans if scan.first.patient == patient]
        return {name for scan in own for name in _present_classes(self._task, scan)}


def _present_classes(task: LabelTask, scan: LabelledScan) -> set[str]:
    """Return the classes with a voxel in a label file."""
    classes = task.meaning(scan.names).classes
    numbers = np.unique(read_volume(scan.labels_path, modality="MR").values())  # integers without a unit
    return {task.names[classes[int(number)]] for number in numbers if int(number) in classes}
