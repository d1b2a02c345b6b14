"""Classification from few labels, as the budgets' runner asks for it. The runs are classifier/run.py's."""

from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Any

from meduet_training.data.labels.scan_classes import class_names
from meduet_training.studies.label_efficiency.task import check_base, read_metrics
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


class ClassificationBudgets:
    """Classes of whole scans. A `BudgetTask`; of two patients of each class one watches over the learning.

    Raises:
        InputError: nothing can be learnt, or nothing judged.
    """

    of_each = 2
    measures: tuple[str, ...] = ("AUC", "balanced accuracy")

    def __init__(self, run: ClassifierRun) -> None:
        check_base(run)
        self._model = load_model(run.data.model, "cpu")
        self._cohort, classified = requested_classes(run)
        self._scans = train_scans(run, classified)
        self.kinds = class_names(self._scans, run.data.target)
        self._modalities: set[Modality] = {each.scan.modality for each in self._scans}
        tests = scans_in_test_split(classified, self.kinds, sorted(self._modalities))
        if len({each.name for each in tests}) < 2:
            raise InputError(
                f"{run.data.scans.name}: the test split has scans of fewer than two of the classes, so "
                "nothing can be judged; give scans of the test split, or leave a domain unseen that has both."
            )
        data = run.data.model_copy(update={"classes": self.kinds})
        training = replace(run.training, model_sha256=self._model.sha256)
        self.base = run.model_copy(update={"data": data, "training": training})
        self.patients = tuple(sorted({each.scan.patient for each in self._scans}))
        self.about = {
            "task": f"classification of {run.data.target}",
            "model": self._model.card.name,
            "model_sha256": self._model.sha256,
            "steps": run.training.total_steps,
            "classes": list(self.kinds),
            "scans_in_test_split": len(tests),
            "test_patients": len({each.scan.patient for each in tests}),
            "test_domains": sorted({each.scan.domain for each in tests}),
            "score_of_a_run": "every class of the test scans counts alike",
        }

    def shown_by(self, patient: str) -> AbstractSet[str]:
        """The classes of a patient's scans."""
        return {each.name for each in self._scans if each.scan.patient == patient}

    def check(self, run: Any) -> None:
        """Refuse a run that cannot be."""
        if run.styles != "off":
            style_bank(self._model, self._cohort, self._modalities)

    def train(self, run: Any, folder: Path) -> None:
        """`run_classifier`."""
        run_classifier(run, folder)

    def scores(self, folder: Path) -> dict[str, float]:
        """AUC and balanced accuracy on the test scans."""
        return read_metrics(folder)
