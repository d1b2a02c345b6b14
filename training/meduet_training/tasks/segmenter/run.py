"""Train a segmenter on labelled scans, encoded by a finished model. `task.py` reads the configuration.

`../train.py` trains, like every task. This file reads the labels, splits the scans into training and
validation set, encodes them, and sets the initial weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import Progress
from torch import nn

from meduet_training.data.caches.training_samples import SampleEntry, cache_samples, open_samples
from meduet_training.data.cohort.scan import Scan
from meduet_training.data.cohort.scans import read_cohort, trainable
from meduet_training.data.labels.scans import LabelledScan, check_labelled, labelled_scans
from meduet_training.data.labels.task import LabelTask, label_task
from meduet_training.data.sources.labelled_crops import HELD_POSES, LabelledSource, num_poses
from meduet_training.engine.config import TrainingConfig
from meduet_training.runtime.fabric import launch_fabric, refuse_fsdp, run_on_rank_zero
from meduet_training.runtime.messages import print_to_stderr, report_on_rank_zero
from meduet_training.tasks.finetuning.objectives import SegmentationConfig
from meduet_training.tasks.finetuning.requested_scans import requested_scans
from meduet_training.tasks.finetuning.shared import style_augmentation, style_bank, validation_patients
from meduet_training.tasks.segmenter.config import SegmenterRun
from meduet_training.tasks.segmenter.validation import SegmenterValidation, TestSplit
from meduet_training.tasks.train import check_batch, train_task
from napari_meduet.core.analysis.encoder_sizes import sizes_of
from napari_meduet.core.analysis.finetuning import SegmentationObjective
from napari_meduet.core.analysis.style_augmentation import StyleBank
from napari_meduet.core.analysis.unetr import UNETRConfig
from napari_meduet.errors import InputError
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model
from napari_meduet.models.segmenters import build_segmenter, init_segmenter
from napari_meduet.volumes.modality import Modality

MOST_SCANS_IN_HELD_POSES = 6
HELD_OUT_NOTE = "Crops of {held} of {all} patients of the train split, who are held out for the validation."
HELD_POSES_NOTE = (
    "Crops of training scans in poses that the training never uses, because there are too few patients to "
    "hold one out. This Dice measures how well the segmenter knows these scans, not how it will do on others."
)


@dataclass(frozen=True, kw_only=True)
class Split:
    """The training set and the validation set.

    Attributes:
        train, validation: scans of each set. With too few patients both have the same scans in other poses.
        train_poses, validation_poses: poses in which the scans are encoded; pose 0 is that of the file.
        note: a sentence about the validation set, for captions.
    """

    train: list[LabelledScan]
    train_poses: tuple[int, ...]
    validation: list[LabelledScan]
    validation_poses: tuple[int, ...]
    note: str


def run_segmenter(run: SegmenterRun, folder: Path) -> None:
    """Train as configured, or resume the run in the folder. All processes of a job call this together.

    Raises:
        InputError: the run is impossible as configured, or the folder belongs to another run.
        Stopped: a signal stopped the run; the same configuration resumes it.
        TrainingFailed: the training cannot continue.
    """
    with report_on_rank_zero():
        refuse_fsdp(run.hardware, "A segmenter")
        model = load_model(run.data.model, "cpu")
        cohort = requested_scans(read_cohort(run.data.scans), run.data)
        train_scans = trainable(cohort)
        task, scans = labelled_train_scans(run, train_scans)
        training = adapt_to_labels(run, model, task, scans, train_scans)
        bank = None
        if cast(SegmentationConfig, training.objective).augmentation is not None:
            bank = style_bank(model, cohort, _modalities(scans))
        split = split_scans(task, scans)
        tests = scans_in_test_split(
            run, task, [scan for scan in cohort if scan.modality in _modalities(scans)]
        )
    fabric = launch_fabric(run.hardware)
    with report_on_rank_zero():
        train_samples = _samples(fabric, run, split.train, task, split.train_poses)
        validation_samples = _samples(fabric, run, split.validation, task, split.validation_poses)
        _check_classes(task, train_samples)
        source = _source(train_samples, task, training, model)
        validation_source = _source(validation_samples, task, training, model)
        check_batch(fabric, run, training, source)
        on_device = load_model(run.data.model, fabric.device.type) if fabric.is_global_zero else model
        test_split = TestSplit(model=on_device, task=task, scans=tests)
    if fabric.is_global_zero:
        print_to_stderr(f"Classes, by their numbers in the predicted label map: {task.in_words()}.")
        print_to_stderr(split.note)
    train_task(
        fabric,
        run,
        training,
        source,
        folder,
        tokenizer=model.tokenizer,
        build_objective=partial(_build_objective, training, model, bank),
        init_weights=partial(init_weights, model=model, training=training),
        validator=SegmenterValidation(validation_source, test_split, run.patience, split.note),
    )


def labelled_train_scans(run: SegmenterRun, scans: Sequence[Scan]) -> tuple[LabelTask, list[LabelledScan]]:
    """Return the classes of a run, and the training scans that have labels of at least one of them.

    Raises:
        InputError: there are no labels, or the configured classes do not fit them.
    """
    data = run.data
    labelled = labelled_scans(data.scans, scans, data.names, data.sequences)
    check_labelled(labelled, scans, data.sequences)
    if data.patients is not None:
        labelled = [scan for scan in labelled if scan.first.patient in data.patients]
    task = label_task([scan.names for scan in labelled], data.classes)
    fitting = [scan for scan in labelled if any(task.meaning(scan.names).annotated[1:])]
    if left_out := len(labelled) - len(fitting):
        print_to_stderr(
            f"{left_out} of {len(labelled)} labelled scans have none of the classes and are left out."
        )
    return task, fitting


def scans_in_test_split(run: SegmenterRun, task: LabelTask, cohort: Sequence[Scan]) -> list[LabelledScan]:
    """Return the scans of the test split that are annotated for at least one class; possibly none."""
    data = run.data
    tests = [scan for scan in cohort if scan.split == "test"]
    labelled = labelled_scans(data.scans, tests, data.names, data.sequences)
    return [scan for scan in labelled if any(task.meaning(scan.names).annotated[1:])]


def adapt_to_labels(
    run: SegmenterRun,
    model: Model,
    task: LabelTask,
    scans: Sequence[LabelledScan],
    train_scans: Sequence[Scan],
) -> TrainingConfig:
    """Return the training of a segmenter with these classes on the latents of this model.

    Args:
        scans: the labelled training scans.
        train_scans: all training scans, labelled or not.

    Raises:
        InputError: no segmenter can read the latents, or style augmentation is impossible.
    """
    configured = cast(SegmentationConfig, run.training.objective)
    modalities = tuple(sorted(_modalities(scans)))
    channels = len(scans[0].channels)
    num_scans = sum(scan.modality in modalities for scan in train_scans) // channels
    augmentation = None
    if channels == 1:
        augmentation = style_augmentation(
            run.styles, configured.augmentation, len(scans), max(num_scans, len(scans))
        )
    elif run.styles not in ("auto", "off"):
        raise InputError(
            "Several sequences that are read together cannot be shown in other styles; use --styles off."
        )
    sizes = sizes_of(model.meduet.config) | {
        "latent_channels": channels * model.meduet.config.latent_channels,
        "num_classes": len(task.names),
    }
    try:
        network = replace(cast(UNETRConfig, run.training.network), **sizes)
    except ValueError as error:
        raise InputError(
            f"{run.data.model.name}: no segmenter can read this model's latents. {error}"
        ) from error
    return replace(
        run.training,
        network=network,
        objective=replace(
            configured,
            encoder_rate=configured.encoder_rate if run.start == "meduet" else 1.0,
            augmentation=augmentation,
            labels=task.labels,
            names=task.names,
            modalities=modalities,
            sequences=run.data.sequences,
        ),
        model_sha256=model.sha256,
        start=run.start,
    )


def split_scans(task: LabelTask, scans: Sequence[LabelledScan]) -> Split:
    """Return a training and a validation set.

    The validation set has patients of its own if there are enough. Otherwise it has the training scans in
    other poses.
    """
    by_patient: dict[str, list[LabelledScan]] = {}
    for scan in scans:
        by_patient.setdefault(scan.first.patient, []).append(scan)
    classes = {
        patient: {name for scan in of_patient for name in _annotated(task, scan)}
        for patient, of_patient in by_patient.items()
    }
    held = validation_patients(by_patient, classes)
    train = [scan for scan in scans if scan.first.patient not in held]
    validation = [scan for scan in scans if scan.first.patient in held]
    return Split(
        train=train,
        train_poses=tuple(range(num_poses(len(train)))),
        validation=validation or train[:MOST_SCANS_IN_HELD_POSES],
        validation_poses=(0,) if validation else HELD_POSES,
        note=HELD_OUT_NOTE.format(held=len(held), all=len(by_patient)) if validation else HELD_POSES_NOTE,
    )


def init_weights(objective: nn.Module, *, model: Model, training: TrainingConfig) -> None:
    """Set a new segmenter and its average: the weights of the model's encoder, or random ones.

    Raises:
        InputError: the weights do not fit.
    """
    assert isinstance(objective, SegmentationObjective)
    assert training.start in ("meduet", "scratch")
    try:
        init_segmenter(objective.student, model, training.start)
    except ValueError as error:
        raise InputError(f"{error} Or begin with --start scratch.") from error
    objective.teacher.load_state_dict(objective.student.state_dict())


def _modalities(scans: Sequence[LabelledScan]) -> set[Modality]:
    return {scan.first.modality for scan in scans}


def _annotated(task: LabelTask, scan: LabelledScan) -> list[str]:
    """Return the classes for which a scan is annotated."""
    annotated = task.meaning(scan.names).annotated
    return [name for name, is_known in zip(task.names[1:], annotated[1:], strict=True) if is_known]


def _build_objective(training: TrainingConfig, model: Model, bank: StyleBank | None) -> SegmentationObjective:
    """Return a new objective with random weights."""
    config = cast(SegmentationConfig, training.objective)
    network = build_segmenter(cast(UNETRConfig, training.network), model.card.tokenizer)
    return SegmentationObjective(config, network, model.meduet if bank else None, bank)


def _samples(
    fabric: Fabric, run: SegmenterRun, scans: list[LabelledScan], task: LabelTask, poses: tuple[int, ...]
) -> list[SampleEntry]:
    """Return the encoded scans, and encode them first if the cache directory has none."""
    data = run.data
    on_cpu = load_model(data.model, "cpu")

    def make() -> None:
        if len(open_samples(on_cpu, scans, task, poses, data.cache_dir)) == len(scans) * len(poses):
            return
        on_device = load_model(data.model, fabric.device.type)
        with Progress(console=Console(stderr=True)) as bar:
            shown = bar.add_task("Training samples", total=len(scans) * len(poses))
            cache_samples(
                on_device,
                scans,
                task,
                poses,
                data.cache_dir,
                lambda number, of: bar.update(shown, completed=number),
            )
            bar.update(shown, completed=len(scans) * len(poses))

    run_on_rank_zero(fabric, make)
    return open_samples(on_cpu, scans, task, poses, data.cache_dir)


def _source(
    entries: Sequence[SampleEntry], task: LabelTask, training: TrainingConfig, model: Model
) -> LabelledSource:
    _, x, y, z = training.network.latent_shape
    return LabelledSource(entries, task, (x, y, z), model.tokenizer.stride, training.seed)


def _check_classes(task: LabelTask, entries: Sequence[SampleEntry]) -> None:
    """Refuse a class without a voxel in the training scans.

    Raises:
        InputError: with the name of the class.
    """
    shown = {number for entry in entries for number in entry.classes}
    absent = [name for number, name in enumerate(task.names) if number and number not in shown]
    if absent:
        raise InputError(
            f"No scan to train on shows a voxel of {', '.join(absent)}; leave it out of data.classes, or "
            "give scans that show it."
        )
