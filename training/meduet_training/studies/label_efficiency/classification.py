"""The classification task of a label-efficiency study. tasks/classifier/run.py trains the runs."""

from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Any

from meduet_training.data.labels.scan_classes import class_names
from meduet_training.evaluation.run_results import read_metrics
from meduet_training.studies.label_efficiency.task import check_base
from meduet_training.tasks.classifier.config import ClassifierRun
from meduet_training.tasks.classifier.run import (
    requested_classes,
    run_classifier,
    scans_in_test_split,
    train_scans,
)
from meduet_training.tasks.finetuning.shared import style_bank
from napari_meduet.errors import InputError
from napari_meduet.models.loading import load_model
from napari_meduet.volumes.volume import Modality


class ClassificationStudy:
    """Classification of whole scans (`StudyTask`). One of two patients of each class is for validation.

    Raises:
        InputError: there are no scans to train on, or no scans to test on.
    """

    patients_per_class = 2
    metrics: tuple[str, ...] = ("AUC", "balanced accuracy")

    def __init__(self, run: ClassifierRun) -> None:
        check_base(run)
        self._model = load_model(run.data.model, "cpu")
        self._cohort, classified = requested_classes(run)
        self._scans = train_scans(run, classified)
        self.classes = class_names(self._scans, run.data.target)
        self._modalities: set[Modality] = {each.scan.modality for each in self._scans}
        tests = scans_in_test_split(classified, self.classes, sorted(self._modalities))
        if len({each.name for each in tests}) < 2:
            raise InputError(
                f"{run.data.scans.name}: the test split has scans of fewer than two classes, so the runs "
                "cannot be compared. Add scans of other classes to the test split, or give --unseen with "
                "another domain."
            )
        data = run.data.model_copy(update={"classes": self.classes})
        training = replace(run.training, model_sha256=self._model.sha256)
        self.base = run.model_copy(update={"data": data, "training": training})
        self.patients = tuple(sorted({each.scan.patient for each in self._scans}))
        self.about = {
            "task": f"classification of {run.data.target}",
            "model": self._model.card.name,
            "model_sha256": self._model.sha256,
            "steps": run.training.total_steps,
            "classes": list(self.classes),
            "scans_in_test_split": len(tests),
            "test_patients": len({each.scan.patient for each in tests}),
            "test_domains": sorted({each.scan.domain for each in tests}),
            "score_of_a_run": "all classes of the test scans have the same weight",
        }

    def classes_of(self, patient: str) -> AbstractSet[str]:
        """Return the classes of the scans of a patient."""
        return {each.name for each in self._scans if each.scan.patient == patient}

    def check(self, run: Any) -> None:
        """Check that a run can be trained."""
        if run.styles != "off":
            style_bank(self._model, self._cohort, self._modalities)

    def train(self, run: Any, folder: Path) -> None:
        """Train a run, or resume it."""
        run_classifier(run, folder)

    def scores(self, folder: Path) -> dict[str, float]:
        """Return AUC and balanced accuracy on the test scans."""
        return read_metrics(folder)
