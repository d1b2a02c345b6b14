"""Train a classifier on scans with a class, encoded by a finished model. `task.py` reads the configuration.

`../train.py` trains, like every task. This file reads the classes, encodes the scans, splits them into
training and validation set, and sets the initial weights.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

from lightning_fabric import Fabric
from torch import nn

from meduet_training.data.augmentation.flips import fit_channel_maps
from meduet_training.data.caches.factors import FactorEntry, open_factors
from meduet_training.data.cohort.scan import Scan
from meduet_training.data.cohort.scans import read_cohort, trainable
from meduet_training.data.labels.scan_classes import (
    ClassifiedScan,
    class_names,
    classified_scans,
    watching_patients,
)
from meduet_training.data.sources.classified_crops import ClassifiedSource
from meduet_training.engine.config import TrainingConfig
from meduet_training.runtime.fabric import launch_fabric, refuse_fsdp
from meduet_training.runtime.messages import print_to_stderr, report_on_rank_zero
from meduet_training.tasks.classifier.config import ClassifierRun
from meduet_training.tasks.classifier.validation import ClassifiedEntries, ClassifierValidation
from meduet_training.tasks.factors import cached_factors
from meduet_training.tasks.finetuning.objectives import ClassificationConfig
from meduet_training.tasks.finetuning.requested_scans import requested_scans, requested_splits
from meduet_training.tasks.finetuning.shared import style_augmentation, style_bank
from meduet_training.tasks.train import check_batch, train_task
from napari_meduet.core.analysis.classifier import ClassifierConfig, ScanClassifier
from napari_meduet.core.analysis.encoder_sizes import sizes_of
from napari_meduet.core.analysis.finetuning import ClassificationObjective
from napari_meduet.core.analysis.style_augmentation import StyleBank
from napari_meduet.errors import InputError
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model
from napari_meduet.models.segmenters import init_classifier
from napari_meduet.volumes.modality import Modality


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A scan with its class and its latent."""

    classified: ClassifiedScan
    entry: FactorEntry


def run_classifier(run: ClassifierRun, folder: Path) -> None:
    """Train as configured, or resume the run in the folder. All processes of a job call this together.

    Raises:
        InputError: the run is impossible as configured, or the folder belongs to another run.
        Stopped: a signal stopped the run; the same configuration resumes it.
        TrainingFailed: the training cannot continue.
    """
    with report_on_rank_zero():
        refuse_fsdp(run.hardware, "A classifier")
        model = load_model(run.data.model, "cpu")
        cohort, classified = requested_classes(run)
        scans = train_scans(run, classified)
        class_names(scans, run.data.target)  # raises before anything is encoded
        num_trainable = Counter(scan.modality for scan in trainable(cohort))
    fabric = launch_fabric(run.hardware)
    with report_on_rank_zero():
        encoded = _encoded(fabric, run, model, scans, "classified")
        scans = [each.classified for each in encoded]
        names = class_names(scans, run.data.target)
        held_out = watching_patients(scans, run.training.seed)
        train = [each for each in encoded if each.classified.scan.patient not in held_out]
        validation = [each for each in encoded if each.classified.scan.patient in held_out]
        training = adapt_to_classes(run, model, names, train, num_trainable)
        objective = cast(ClassificationConfig, training.objective)
        bank = style_bank(model, cohort, set(objective.modalities)) if objective.augmentation else None
        tests = _encoded(
            fabric, run, model, scans_in_test_split(classified, names, objective.modalities), "test"
        )
        numbered_train = numbered(names, train)
        source = ClassifiedSource(
            numbered_train.entries,
            numbered_train.labels,
            cast(ClassifierConfig, training.network).grid,
            training.seed,
            model,
            fit_channel_maps(model.tokenizer),
        )
        check_batch(fabric, run, training, source)
    if fabric.is_global_zero:
        of_validation = Counter(each.classified.name for each in validation)
        counts = ", ".join(
            f"{name} ({number} + {of_validation[name]} scans)"
            for name, number in zip(names, objective.num_scans, strict=True)
        )
        print_to_stderr(f"Classes, with the number of training and validation scans: {counts}.")
    train_task(
        fabric,
        run,
        training,
        source,
        folder,
        tokenizer=model.tokenizer,
        build_objective=partial(_build_objective, training, model, bank),
        init_weights=partial(init_weights, model=model, training=training),
        validator=ClassifierValidation(
            numbered(names, validation), numbered(names, tests), names, run.patience
        ),
    )


def requested_classes(run: ClassifierRun) -> tuple[list[Scan], list[ClassifiedScan]]:
    """Return the scans that the configuration uses, and those of them whose class is known.

    Raises:
        InputError: the list cannot be read, or has no such column, class or domain.
    """
    data = run.data
    cohort = read_cohort(data.scans)
    classified = classified_scans(data.scans, cohort, data.target, data.classes)
    splits = dict(zip(cohort, requested_splits(cohort, data), strict=True))
    return requested_scans(cohort, data), [
        replace(each, scan=replace(each.scan, split=split))
        for each in classified
        if (split := splits[each.scan]) is not None
    ]


def train_scans(run: ClassifierRun, scans: Sequence[ClassifiedScan]) -> list[ClassifiedScan]:
    """Return the scans of the train split, of the configured modality and patients, whose licence allows it.

    Raises:
        InputError: no scan of the modality has a class.
    """
    modality = run.data.modality
    chosen = [each for each in scans if modality in (None, each.scan.modality)]
    if not chosen:
        raise InputError(
            f"{run.data.scans.name}: no {f'{modality} ' if modality else ''}scan has a value in "
            f"{run.data.target}, so there is nothing to learn."
        )
    allowed, patients = set(trainable([each.scan for each in chosen])), run.data.patients
    return [
        each
        for each in chosen
        if each.scan in allowed and (patients is None or each.scan.patient in patients)
    ]


def scans_in_test_split(
    scans: Sequence[ClassifiedScan], names: Sequence[str], modalities: Sequence[Modality]
) -> list[ClassifiedScan]:
    """Return the scans of the test split that have one of the classes; possibly none."""
    return [
        each
        for each in scans
        if each.scan.split == "test" and each.name in names and each.scan.modality in modalities
    ]


def adapt_to_classes(
    run: ClassifierRun,
    model: Model,
    names: tuple[str, ...],
    train: Sequence[Encoded],
    num_trainable: Mapping[str, int],
) -> TrainingConfig:
    """Return the training of a classifier with these classes on the latents of this model.

    Args:
        num_trainable: number of training scans of each modality, with or without a class.
    """
    configured = cast(ClassificationConfig, run.training.objective)
    counts = Counter(each.classified.name for each in train)
    modalities = tuple(sorted({each.classified.scan.modality for each in train}))
    num_scans = sum(num_trainable[modality] for modality in modalities)
    sizes = {**sizes_of(model.meduet.config), "num_classes": len(names)}
    return replace(
        run.training,
        network=replace(cast(ClassifierConfig, run.training.network), **sizes),
        objective=replace(
            configured,
            augmentation=style_augmentation(run.styles, configured.augmentation, len(train), num_scans),
            target=run.data.target,
            classes=names,
            num_scans=tuple(counts[name] for name in names),
            modalities=modalities,
        ),
        model_sha256=model.sha256,
        start=run.start,
    )


def init_weights(objective: nn.Module, *, model: Model, training: TrainingConfig) -> None:
    """Set a new classifier and its average: the weights of the model's encoder, or random ones."""
    assert isinstance(objective, ClassificationObjective)
    assert training.start in ("meduet", "scratch")
    init_classifier(objective.student, model, training.start)
    objective.teacher.load_state_dict(objective.student.state_dict())


def numbered(names: tuple[str, ...], scans: Sequence[Encoded]) -> ClassifiedEntries:
    """Return encoded scans with the number of their class in the network's outputs."""
    return ClassifiedEntries(
        entries=[each.entry for each in scans], labels=[names.index(each.classified.name) for each in scans]
    )


def _encoded(
    fabric: Fabric, run: ClassifierRun, model: Model, scans: Sequence[ClassifiedScan], description: str
) -> list[Encoded]:
    """Return encoded scans, without those that cannot be encoded."""
    cached_factors(fabric, run.data.model, [each.scan for each in scans], run.data.cache_dir, description)
    return [
        Encoded(classified=each, entry=entry)
        for each in scans
        for entry in open_factors(model, [each.scan], run.data.cache_dir)
    ]


def _build_objective(
    training: TrainingConfig, model: Model, bank: StyleBank | None
) -> ClassificationObjective:
    """Return a new objective with random weights."""
    network = ScanClassifier(cast(ClassifierConfig, training.network))
    config = cast(ClassificationConfig, training.objective)
    return ClassificationObjective(config, network, model.meduet if bank else None, bank)
