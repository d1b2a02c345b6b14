"""`meduet-evaluate classification`: a classifier on whole test scans whose class the list tells."""

import json
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
from meduet_training.evaluation.sections import Metric, EvaluationSection, Table, write_section
from napari_meduet.errors import InputError
from napari_meduet.models.card import CLASSIFIER_FILE
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model
from napari_meduet.models.saving import save_metrics
from napari_meduet.pipelines.classification import classify_prepared
from napari_meduet.pipelines.common.encoding import prepare_scan
from napari_meduet.pipelines.common.memory import check_memory
from napari_meduet.volumes.files import write_atomically

CLASSIFICATION_JSON, CLASSIFICATION_MARKDOWN = "classification.json", "classification.md"
SECTION = "classification"  # of a document

HOW = (
    "The class with the highest probability for each whole scan of the test split; {target} is what the list "
    "says. Every class counts alike: AUC is the mean over classes, each against the rest, and accuracy the "
    "mean over classes of the share that was recognised. Intervals draw patients. model sha256 {model}, "
    "classifier sha256 {classifier}."
)


@dataclass(frozen=True, kw_only=True)
class ClassificationQuestion:
    """What to evaluate, and how.

    Attributes:
        target: the column of the list that holds the class of each scan.
    """

    model: Path
    data: Path
    target: str
    seed: int
    device: str


@dataclass(frozen=True, kw_only=True)
class ClassificationEvaluation:
    """What was found.

    Attributes:
        setting: all that a figure must not be quoted without.
    """

    part: EvaluationSection
    setting: dict[str, Any]

    def as_data(self) -> dict[str, Any]:
        """JSON types, single scans included."""
        return self.as_card_data() | {"tables": [asdict(table) for table in self.part.tables]}

    def as_card_data(self) -> dict[str, Any]:
        """For the model card: without the single scans."""
        return self.setting | self.part.as_data()


def evaluate_classification(
    question: ClassificationQuestion, say: Callable[[str], None]
) -> ClassificationEvaluation:
    """Classify every test scan, and judge the answers.

    Raises:
        InputError: model or list cannot be used, or the test scans are not of two classes it knows.
    """
    model = load_model(question.model, question.device)
    card = model.card.classifier
    if card is None:
        raise InputError(
            f"The model {model.card.name} has no classifier. Choose another model, or train a classifier for "
            "it (meduet-train classifier)."
        )
    scans, others = _test_scans(question, model)
    probabilities = []
    for number, each in enumerate(scans, start=1):
        say(f"Scan {number} of {len(scans)}")
        probabilities.append(_probabilities(model, each))
    found, truth = np.stack(probabilities), np.array([card.classes.index(each.name) for each in scans])
    patients = [each.scan.patient for each in scans]
    scores = classification_scores(found, truth, patients, question.seed)
    chance = 1 / len(card.classes)
    digests = {
        "model_sha256": model.sha256,
        "classifier_sha256": model.card.files[CLASSIFIER_FILE].sha256,
    }
    how = HOW.format(
        target=question.target, model=model.sha256[:16], classifier=digests["classifier_sha256"][:16]
    )
    if others:
        told = ", ".join(f"{name} ({count})" for name, count in others.items())
        how += f" Test scans of classes that the classifier does not know, not judged: {told}."
    part = EvaluationSection(
        title="Classification of test scans",
        how=how,
        metrics=(
            Metric(what="AUC", estimate=scores.auc, beside="chance 0.5"),
            Metric(
                what="balanced accuracy",
                estimate=scores.accuracy,
                beside=f"chance {chance:.3f}; {scores.majority:.3f} of the scans are of the largest class",
            ),
        ),
        tables=(
            Table(
                title="Who is taken for whom, in scans",
                columns=("true class", *card.classes),
                rows=[
                    (name, *map(int, row)) for name, row in zip(card.classes, scores.confusion, strict=True)
                ],
            ),
            Table(
                title="Single scans",
                columns=("scan", "domain", "true class", "found", "its probability"),
                rows=[
                    (
                        str(number),
                        each.scan.domain,
                        each.name,
                        card.classes[int(row.argmax())],
                        float(row.max()),
                    )
                    for number, (each, row) in enumerate(zip(scans, found, strict=True), start=1)
                ],
            ),
        ),
        seed=question.seed,
    )
    setting = digests | {"target": question.target, "classes": list(card.classes), "not_judged": others}
    return ClassificationEvaluation(part=part, setting=setting)


def write_evaluation(found: ClassificationEvaluation, folder: Path, document: Path | None) -> None:
    """Figures as JSON and as a page of tables; into a document where that is wanted."""
    for name, text in (
        (CLASSIFICATION_JSON, json.dumps(found.as_data(), indent=2, allow_nan=False) + "\n"),
        (CLASSIFICATION_MARKDOWN, found.part.as_markdown()),
    ):
        with write_atomically(folder / name, overwrite=True) as temporary:
            temporary.write_text(text, "utf-8")
    if document is not None:
        write_section(document, SECTION, found.part.as_markdown())


def put_on_card(found: ClassificationEvaluation, model: Path) -> None:
    """The figures, without single scans, as those of the model's classifier."""
    save_metrics(model, found.as_card_data(), of="classifier")


def _test_scans(
    question: ClassificationQuestion, model: Model
) -> tuple[list[ClassifiedScan], dict[str, int]]:
    """The scans that judge, and how many there are of each class that the classifier does not know.

    Raises:
        InputError: they are not of two classes that it knows.
    """
    card = model.card.classifier
    assert card is not None, "only models with a classifier come here"
    every = classified_scans(question.data, read_cohort(question.data), question.target)
    test = [each for each in every if each.scan.split == "test" and each.scan.modality in card.modalities]
    scans = [each for each in test if each.name in card.classes]
    found = sorted({each.name for each in scans})
    if len(found) < 2:
        there = f"one class, {found[0]}," if found else "no class"
        raise InputError(
            f"{question.data.name}: the test scans are of {there} of those that the classifier tells apart "
            f"({', '.join(card.classes)}); it is judged by scans of two or more."
        )
    return scans, dict(sorted(Counter(each.name for each in test if each.name not in card.classes).items()))


def _probabilities(model: Model, each: ClassifiedScan) -> np.ndarray:
    """(K,) of one scan."""
    assert model.classifier is not None, "only models with a classifier come here"
    volume = read_scan(each.scan)
    check_memory(model, volume)
    return classify_prepared(model, model.classifier, prepare_scan(model, volume))[0].numpy()
