"""A configuration becomes the training of a segmenter: all is checked, examples are made, then it is trained.

The engine is the pretraining's; what differs is what is learnt from (labelled scans, encoded by a finished
model), how the network begins, and that the run ends when validations bring nothing more.
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
from meduet_training.data.sources.step_batches import Shard
from meduet_training.engine.config import TrainingConfig
from meduet_training.engine.trainer import checked_batches
from meduet_training.evaluation.run_results import RESULTS_TABLE
from meduet_training.runtime.fabric import launch_fabric, refuse_fsdp, run_on_rank_zero
from meduet_training.runtime.messages import print_to_stderr, report_on_rank_zero
from meduet_training.tasks.finetuning.objectives import SegmentationConfig
from meduet_training.tasks.finetuning.requested_scans import requested_scans
from meduet_training.tasks.finetuning.shared import augmentation_for, held_out, style_bank
from meduet_training.tasks.generator.run import train_watched
from meduet_training.tasks.segmenter.config import SegmenterRun
from meduet_training.tasks.segmenter.validation import SegmenterValidation, TestSplit
from napari_meduet.core.analysis.encoder_sizes import sizes_of
from napari_meduet.core.analysis.finetuning import SegmentationObjective
from napari_meduet.core.analysis.style_augmentation import StyleBank
from napari_meduet.core.analysis.unetr import UNETRConfig
from napari_meduet.errors import InputError
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model
from napari_meduet.models.segmenters import begin_segmenter, build_segmenter
from napari_meduet.volumes.volume import Modality

MOST_SCANS_IN_HELD_POSES = 6
OTHERS_NOTE = "Crops of patients of the train split who are held out: {held} of {all}."
OWN_NOTE = (
    "Crops of scans that the segmenter learns from, turned as the training never turns them: there are too "
    "few patients to hold one out, so this Dice says how well it knows them, not how it will do on others."
)


@dataclass(frozen=True, kw_only=True)
class Division:
    """Who is learnt from, and who judges.

    Attributes:
        learned, judges: the same scans, in other poses, where there are too few patients.
        note: on the judges, for captions.
    """

    learned: list[LabelledScan]
    poses: tuple[int, ...]
    judges: list[LabelledScan]
    judges_poses: tuple[int, ...]
    note: str


def run_segmenter(run: SegmenterRun, folder: Path) -> None:
    """Train as the configuration says, or go on with the run in the folder. On all processes of the job.

    Raises:
        InputError: the configuration cannot be run here, or the folder is another run's. Nothing was trained.
        Stopped: a signal came; the same configuration goes on from there.
        Failed: the training cannot go on.
    """
    with report_on_rank_zero():
        refuse_fsdp(run.hardware, "A segmenter")
        model = load_model(run.data.model, "cpu")
        cohort = requested_scans(read_cohort(run.data.scans), run.data)
        learnable = trainable(cohort)
        task, scans = learnt_labels(run, learnable)
        training = for_task(run, model, task, scans, learnable)
        bank = None
        if cast(SegmentationConfig, training.objective).augmentation is not None:
            bank = style_bank(model, cohort, _modalities(scans))
        division = divided(task, scans)
        tests = scans_in_test_split(
            run, task, [scan for scan in cohort if scan.modality in _modalities(scans)]
        )
    fabric = launch_fabric(run.hardware)
    with report_on_rank_zero():
        entries, judged_by = (
            _examples(fabric, run, each, task, poses)
            for each, poses in (
                (division.learned, division.poses),
                (division.judges, division.judges_poses),
            )
        )
        _check_classes(task, entries)
        source, judges = (_source(each, task, training, model) for each in (entries, judged_by))
        checked_batches(
            training, source, Shard(num_ranks=fabric.world_size, accumulate=run.hardware.accumulate)
        )
        looking = load_model(run.data.model, fabric.device.type) if fabric.is_global_zero else model
        test_split = TestSplit(model=looking, task=task, scans=tests)
    if fabric.is_global_zero:
        print_to_stderr(f"Classes, by the numbers in what it will write: {task.in_words()}.")
        print_to_stderr(division.note)
    train_watched(
        fabric,
        run,
        training,
        source,
        model,
        folder,
        build=partial(_objective, training, model, bank),
        on_new=partial(begin, model=model, training=training),
        validator=SegmenterValidation(judges, test_split, run.patience, division.note),
    )
    results = folder / RESULTS_TABLE
    if fabric.is_global_zero and results.is_file():
        print(results.read_text(encoding="utf-8"), end="")


def learnt_labels(run: SegmenterRun, scans: Sequence[Scan]) -> tuple[LabelTask, list[LabelledScan]]:
    """The classes of a run, and the scans that have labels of some of them.

    Raises:
        InputError: there are none, or they cannot be meant.
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
    """The labelled scans of the test split in which somebody looked for some of the classes; maybe none."""
    data = run.data
    tests = [scan for scan in cohort if scan.split == "test"]
    labelled = labelled_scans(data.scans, tests, data.names, data.sequences)
    return [scan for scan in labelled if any(task.meaning(scan.names).annotated[1:])]


def for_task(
    run: SegmenterRun,
    model: Model,
    task: LabelTask,
    scans: Sequence[LabelledScan],
    learnable: Sequence[Scan],
) -> TrainingConfig:
    """The run's training of a segmenter with these classes on this model's latents.

    Args:
        learnable: all scans to train on, labelled or not.
    """
    asked = cast(SegmentationConfig, run.training.objective)
    modalities = tuple(sorted(_modalities(scans)))
    channels = len(scans[0].channels)
    of_these = sum(scan.modality in modalities for scan in learnable) // channels
    augmentation = None
    if channels == 1:
        augmentation = augmentation_for(run.styles, asked.augmentation, len(scans), max(of_these, len(scans)))
    elif run.styles not in ("auto", "off"):
        raise InputError(
            "Several sequences that are seen together cannot be shown in other styles; use --styles off."
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
            asked,
            encoder_rate=asked.encoder_rate if run.start == "meduet" else 1.0,
            augmentation=augmentation,
            labels=task.labels,
            names=task.names,
            modalities=modalities,
            sequences=run.data.sequences,
        ),
        model_sha256=model.sha256,
        start=run.start,
    )


def divided(task: LabelTask, scans: Sequence[LabelledScan]) -> Division:
    """Some patients judge where there are enough; else the scans judge themselves in other poses."""
    by_patient: dict[str, list[LabelledScan]] = {}
    for scan in scans:
        by_patient.setdefault(scan.first.patient, []).append(scan)
    kinds = {
        patient: {name for scan in own for name in _annotated(task, scan)}
        for patient, own in by_patient.items()
    }
    held = held_out(by_patient, kinds)
    learned = [scan for scan in scans if scan.first.patient not in held]
    judges = [scan for scan in scans if scan.first.patient in held]
    return Division(
        learned=learned,
        poses=tuple(range(num_poses(len(learned)))),
        judges=judges or learned[:MOST_SCANS_IN_HELD_POSES],
        judges_poses=(0,) if judges else HELD_POSES,
        note=OTHERS_NOTE.format(held=len(held), all=len(by_patient)) if judges else OWN_NOTE,
    )


def begin(objective: nn.Module, *, model: Model, training: TrainingConfig) -> None:
    """Set a new segmenter and its average: the model's weights where it starts from them.

    Raises:
        InputError: they do not fit.
    """
    assert isinstance(objective, SegmentationObjective)
    assert training.start in ("meduet", "scratch")
    try:
        begin_segmenter(objective.student, model, training.start)
    except ValueError as error:
        raise InputError(f"{error} Or begin with --start scratch.") from error
    objective.teacher.load_state_dict(objective.student.state_dict())


def _modalities(scans: Sequence[LabelledScan]) -> set[Modality]:
    return {scan.first.modality for scan in scans}


def _annotated(task: LabelTask, scan: LabelledScan) -> list[str]:
    """The classes that somebody looked for in a scan."""
    annotated = task.meaning(scan.names).annotated
    return [name for name, is_known in zip(task.names[1:], annotated[1:], strict=True) if is_known]


def _objective(training: TrainingConfig, model: Model, bank: StyleBank | None) -> SegmentationObjective:
    """What is trained, with random weights."""
    config = cast(SegmentationConfig, training.objective)
    network = build_segmenter(cast(UNETRConfig, training.network), model.card.tokenizer)
    return SegmentationObjective(config, network, model.meduet if bank else None, bank)


def _examples(
    fabric: Fabric, run: SegmenterRun, scans: list[LabelledScan], task: LabelTask, poses: tuple[int, ...]
) -> list[SampleEntry]:
    """Made by the first process, on its device, unless they are there; opened by all."""
    data = run.data
    on_cpu = load_model(data.model, "cpu")

    def make() -> None:
        if len(open_samples(on_cpu, scans, task, poses, data.cache_dir)) == len(scans) * len(poses):
            return
        on_device = load_model(data.model, fabric.device.type)
        with Progress(console=Console(stderr=True)) as bar:
            shown = bar.add_task("Examples", total=len(scans) * len(poses))
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
    """Refuse a class of which no scan shows a voxel.

    Raises:
        InputError: with its name.
    """
    shown = {number for entry in entries for number in entry.classes}
    absent = [name for number, name in enumerate(task.names) if number and number not in shown]
    if absent:
        raise InputError(
            f"No scan to train on shows a voxel of {', '.join(absent)}; leave it out of data.classes, or "
            "give scans that show it."
        )
