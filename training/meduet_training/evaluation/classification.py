"""`meduet-evaluate classification`: metrics of a classifier on whole test scans with a known class.

metrics/classification_scores.py computes AUC, balanced accuracy and the confusion matrix.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from meduet_training.data.cohort.scan import read_scan
from meduet_training.data.cohort.scans import read_cohort
from meduet_training.data.labels.scan_classes import ClassifiedScan, classified_scans
from meduet_training.evaluation.metrics.classification_scores import classification_scores
from meduet_training.evaluation.sections import EvaluationSection, Metric, Table
from napari_meduet.errors import InputError
from napari_meduet.models.card import CLASSIFIER_FILE
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model
from napari_meduet.pipelines.classification import classify_prepared
from napari_meduet.pipelines.common.encoding import prepare_scan
from napari_meduet.pipelines.common.memory import check_memory

NAME = "classification"  # of the output files and of the section in a document
DESCRIPTION = (
    "The prediction is the class with the highest probability for each whole scan of the test split. The "
    "true class is {target} in the list of scans. Every class has the same weight: AUC is the mean over "
    "classes of each class against the others, and balanced accuracy is the mean over classes of the "
    "fraction of correct predictions. Intervals are over patients. Model sha256 {model}, classifier sha256 "
    "{classifier}."
)


@dataclass(frozen=True, kw_only=True)
class ClassificationOptions:
    """Options of the evaluation of a classifier.

    Attributes:
        model: folder of a model with a classifier.
        data: the list of scans; the scans of its test split are evaluated.
        target: column of the list with the class of each scan.
    """

    model: Path
    data: Path
    target: str
    seed: int
    device: str


@dataclass(frozen=True, kw_only=True)
class ClassificationEvaluation:
    """Metrics of a classifier.

    Attributes:
        settings: the digests, classes and options that describe the metrics.
    """

    section: EvaluationSection
    settings: dict[str, Any]

    def as_data(self) -> dict[str, Any]:
        """Return everything as JSON types, with the tables of single scans."""
        return self.as_card_data() | {"tables": [asdict(table) for table in self.section.tables]}

    def as_card_data(self) -> dict[str, Any]:
        """Return the metrics for the model card, without single scans."""
        return self.settings | self.section.as_data()

    def as_markdown(self) -> str:
        """Return metrics and tables as Markdown."""
        return self.section.as_markdown()


def evaluate_classification(
    options: ClassificationOptions, report: Callable[[str], None]
) -> ClassificationEvaluation:
    """Classify every test scan, and compute the metrics.

    Args:
        report: called with a line of progress for each scan.

    Raises:
        InputError: the model or the list cannot be used, or fewer than two known classes have test scans.
    """
    model = load_model(options.model, options.device)
    card = model.card.classifier
    if card is None:
        raise InputError(
            f"The model {model.card.name} has no classifier. Choose another model, or train a classifier for "
            "it (meduet-train classifier)."
        )
    scans, unknown = _test_scans(options, model)
    probabilities = []
    for number, each in enumerate(scans, start=1):
        report(f"Scan {number} of {len(scans)}")
        probabilities.append(_probabilities(model, each))
    predicted, truth = np.stack(probabilities), np.array([card.classes.index(each.name) for each in scans])
    patients = [each.scan.patient for each in scans]
    scores = classification_scores(predicted, truth, patients, options.seed)
    chance = 1 / len(card.classes)
    digests = {
        "model_sha256": model.sha256,
        "classifier_sha256": model.card.files[CLASSIFIER_FILE].sha256,
    }
    description = DESCRIPTION.format(
        target=options.target, model=model.sha256[:16], classifier=digests["classifier_sha256"][:16]
    )
    if unknown:
        counts = ", ".join(f"{name} ({count})" for name, count in unknown.items())
        description += f" Test scans of classes that the classifier does not know, not evaluated: {counts}."
    section = EvaluationSection(
        title="Classification of test scans",
        description=description,
        metrics=(
            Metric(name="AUC", estimate=scores.auc, comparison="chance 0.5"),
            Metric(
                name="balanced accuracy",
                estimate=scores.accuracy,
                comparison=f"chance {chance:.3f}; fraction of the most frequent class {scores.majority:.3f}",
            ),
        ),
        tables=(
            Table(
                title="Confusion matrix, in scans",
                columns=("true class", *card.classes),
                rows=[
                    (name, *map(int, row)) for name, row in zip(card.classes, scores.confusion, strict=True)
                ],
            ),
            Table(
                title="Single scans",
                columns=("scan", "domain", "true class", "predicted class", "probability"),
                rows=[
                    (
                        str(number),
                        each.scan.domain,
                        each.name,
                        card.classes[int(row.argmax())],
                        float(row.max()),
                    )
                    for number, (each, row) in enumerate(zip(scans, predicted, strict=True), start=1)
                ],
            ),
        ),
        seed=options.seed,
    )
    settings = digests | {"target": options.target, "classes": list(card.classes), "not_evaluated": unknown}
    return ClassificationEvaluation(section=section, settings=settings)


def _test_scans(options: ClassificationOptions, model: Model) -> tuple[list[ClassifiedScan], dict[str, int]]:
    """Return the test scans of known classes, and the number of test scans of each unknown class.

    Raises:
        InputError: fewer than two known classes have test scans.
    """
    card = model.card.classifier
    assert card is not None, "the caller checks that the model has a classifier"
    labelled = classified_scans(options.data, read_cohort(options.data), options.target)
    test = [each for each in labelled if each.scan.split == "test" and each.scan.modality in card.modalities]
    scans = [each for each in test if each.name in card.classes]
    present = sorted({each.name for each in scans})
    if len(present) < 2:
        raise InputError(
            f"{options.data.name}: the test scans have {len(present)} of the {len(card.classes)} classes "
            f"of the classifier ({', '.join(card.classes)}); expected at least 2. Add test scans of other "
            "classes, or choose another --target."
        )
    return scans, dict(sorted(Counter(each.name for each in test if each.name not in card.classes).items()))


def _probabilities(model: Model, each: ClassifiedScan) -> np.ndarray:
    """Return the class probabilities (K,) of one scan."""
    assert model.classifier is not None, "the caller checks that the model has a classifier"
    volume = read_scan(each.scan)
    check_memory(model, volume)
    return classify_prepared(model, model.classifier, prepare_scan(model, volume))[0].numpy()
