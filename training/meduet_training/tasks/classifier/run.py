"""A configuration becomes the training of a classifier: all is checked, scans are encoded, then it learns.

The engine is the pretraining's; what differs is what is learnt from (scans with a class, encoded by a
finished model), how the network begins, and that the run ends when validations bring nothing more.
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
from meduet_training.data.sources.step_batches import Shard
from meduet_training.engine.config import TrainingConfig
from meduet_training.engine.trainer import checked_batches
from meduet_training.evaluation.run_results import RESULTS_TABLE
from meduet_training.runtime.fabric import launch_fabric, refuse_fsdp
from meduet_training.runtime.messages import print_to_stderr, report_on_rank_zero
from meduet_training.tasks.classifier.config import ClassifierRun
from meduet_training.tasks.classifier.validation import ClassifiedEntries, ClassifierValidation
from meduet_training.tasks.finetuning.objectives import ClassificationConfig
from meduet_training.tasks.finetuning.requested_scans import requested_scans, requested_splits
from meduet_training.tasks.finetuning.shared import augmentation_for, style_bank
from meduet_training.tasks.generator.run import factors_of, train_watched
from napari_meduet.core.analysis.classifier import ClassifierConfig, ScanClassifier
from napari_meduet.core.analysis.encoder_sizes import sizes_of
from napari_meduet.core.analysis.finetuning import ClassificationObjective
from napari_meduet.core.analysis.style_augmentation import StyleBank
from napari_meduet.errors import InputError
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model
from napari_meduet.models.segmenters import begin_classifier
from napari_meduet.volumes.volume import Modality


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A scan whose class is known, and its latent."""

    classified: ClassifiedScan
    entry: FactorEntry


def run_classifier(run: ClassifierRun, folder: Path) -> None:
    """Train as the configuration says, or go on with the run in the folder. On all processes of the job.

    Raises:
        InputError: the configuration cannot be run here, or the folder is another run's. Nothing was trained.
        Stopped: a signal came; the same configuration goes on from there.
        Failed: the training cannot go on.
    """
    with report_on_rank_zero():
        refuse_fsdp(run.hardware, "A classifier")
        model = load_model(run.data.model, "cpu")
        cohort, classified = requested_classes(run)
        scans = learnable(run, classified)
        class_names(scans, run.data.target)  # refuses before anything is encoded
        num_trainable = Counter(scan.modality for scan in trainable(cohort))
    fabric = launch_fabric(run.hardware)
    with report_on_rank_zero():
        encoded = _encoded(fabric, run, model, scans, "classified")
        scans = [each.classified for each in encoded]
        names = class_names(scans, run.data.target)
        watching = watching_patients(scans, run.training.seed)
        learned = [each for each in encoded if each.classified.scan.patient not in watching]
        judges = [each for each in encoded if each.classified.scan.patient in watching]
        training = for_task(run, model, names, learned, num_trainable)
        objective = cast(ClassificationConfig, training.objective)
        bank = style_bank(model, cohort, set(objective.modalities)) if objective.augmentation else None
        tests = _encoded(
            fabric, run, model, scans_in_test_split(classified, names, objective.modalities), "test"
        )
        shown = numbered(names, learned)
        source = ClassifiedSource(
            shown.entries,
            shown.labels,
            cast(ClassifierConfig, training.network).grid,
            training.seed,
            model,
            fit_channel_maps(model.tokenizer),
        )
        checked_batches(
            training, source, Shard(num_ranks=fabric.world_size, accumulate=run.hardware.accumulate)
        )
    if fabric.is_global_zero:
        watched = Counter(each.classified.name for each in judges)
        counted = zip(names, objective.num_scans, strict=True)
        told = ", ".join(f"{name} ({number} + {watched[name]} scans)" for name, number in counted)
        print_to_stderr(f"Classes, with scans that are learnt from and that watch: {told}.")
    train_watched(
        fabric,
        run,
        training,
        source,
        model,
        folder,
        build=partial(_objective, training, model, bank),
        on_new=partial(begin, model=model, training=training),
        validator=ClassifierValidation(numbered(names, judges), numbered(names, tests), names, run.patience),
    )
    results = folder / RESULTS_TABLE
    if fabric.is_global_zero and results.is_file():
        print(results.read_text(encoding="utf-8"), end="")


def requested_classes(run: ClassifierRun) -> tuple[list[Scan], list[ClassifiedScan]]:
    """The scans that the configuration asks for, and those of them whose class is known.

    Raises:
        InputError: the list cannot be read, or what is asked for is not in it.
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


def learnable(run: ClassifierRun, scans: Sequence[ClassifiedScan]) -> list[ClassifiedScan]:
    """Those of the train split, of the modality and patients that are asked for, whose licence allows it.

    Raises:
        InputError: there is none.
    """
    modality = run.data.modality
    chosen = [each for each in scans if modality in (None, each.scan.modality)]
    if not chosen:
        raise InputError(
            f"{run.data.scans.name}: no {f'{modality} ' if modality else ''}scan says something in "
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
    """The scans of the test split that are of one of the classes; maybe none."""
    return [
        each
        for each in scans
        if each.scan.split == "test" and each.name in names and each.scan.modality in modalities
    ]


def for_task(
    run: ClassifierRun,
    model: Model,
    names: tuple[str, ...],
    learned: Sequence[Encoded],
    num_trainable: Mapping[str, int],
) -> TrainingConfig:
    """The run's training of a classifier with these classes on this model's latents.

    Args:
        num_trainable: scans of each modality to train on, whether their class is known or not.
    """
    asked = cast(ClassificationConfig, run.training.objective)
    counts = Counter(each.classified.name for each in learned)
    modalities = tuple(sorted({each.classified.scan.modality for each in learned}))
    of_these = sum(num_trainable[modality] for modality in modalities)
    sizes = {**sizes_of(model.meduet.config), "num_classes": len(names)}
    return replace(
        run.training,
        network=replace(cast(ClassifierConfig, run.training.network), **sizes),
        objective=replace(
            asked,
            augmentation=augmentation_for(run.styles, asked.augmentation, len(learned), of_these),
            target=run.data.target,
            classes=names,
            num_scans=tuple(counts[name] for name in names),
            modalities=modalities,
        ),
        model_sha256=model.sha256,
        start=run.start,
    )


def begin(objective: nn.Module, *, model: Model, training: TrainingConfig) -> None:
    """Set a new classifier and its average: the model's encoder where it starts from it."""
    assert isinstance(objective, ClassificationObjective)
    assert training.start in ("meduet", "scratch")
    begin_classifier(objective.student, model, training.start)  # of the model's sizes, so it fits
    objective.teacher.load_state_dict(objective.student.state_dict())


def numbered(names: tuple[str, ...], scans: Sequence[Encoded]) -> ClassifiedEntries:
    """Scans with their classes as the network counts them."""
    return ClassifiedEntries(
        entries=[each.entry for each in scans], labels=[names.index(each.classified.name) for each in scans]
    )


def _encoded(
    fabric: Fabric, run: ClassifierRun, model: Model, scans: Sequence[ClassifiedScan], what: str
) -> list[Encoded]:
    """Encoded by the first process unless they are there; those that cannot be are left out."""
    factors_of(fabric, run.data.model, [each.scan for each in scans], run.data.cache_dir, what)
    return [
        Encoded(classified=each, entry=entry)
        for each in scans
        for entry in open_factors(model, [each.scan], run.data.cache_dir)
    ]


def _objective(training: TrainingConfig, model: Model, bank: StyleBank | None) -> ClassificationObjective:
    """What is trained, with random weights."""
    network = ScanClassifier(cast(ClassifierConfig, training.network))
    config = cast(ClassificationConfig, training.objective)
    return ClassificationObjective(config, network, model.meduet if bank else None, bank)
