"""Interactive fine-tuning of a segmenter on a few labelled scans (specification, section 10).

What is taught begins as the model's own segmenter where it has one, and as its MeDUET encoder where not, so
minutes on two cores are enough for structures that look alike in all scans. Labels may be whole structures,
or strokes: then what nobody painted is unknown, and one number stands for the background.

The training of a server is `meduet_training`'s business; it learns by the same losses from the same examples.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Generator

from napari_meduet.core.analysis.encoder_sizes import sizes_of
from napari_meduet.core.analysis.finetuning import (
    IGNORED,
    FinetuningConfig,
    SegmentationBatch,
    SegmentationObjective,
    soft_dice,
)
from napari_meduet.core.analysis.unetr import LatentUNETR, UNETRConfig
from napari_meduet.core.schedules import warmup_cosine
from napari_meduet.core.sliding_windows import Position
from napari_meduet.errors import InputError, OnProgress
from napari_meduet.models.card import MaskClass, Modality
from napari_meduet.models.folders import demo_model_path
from napari_meduet.models.loading import load_model
from napari_meduet.models.model import Model
from napari_meduet.models.segmenters import build_segmenter, init_segmenter, scans_read
from napari_meduet.pipelines.common.encoding import PreparedScan, prepare_scan
from napari_meduet.pipelines.common.interruption import interruptible
from napari_meduet.pipelines.common.labels import labels_on
from napari_meduet.pipelines.common.progress import null_progress, part, parts
from napari_meduet.pipelines.factors import read_scan
from napari_meduet.pipelines.requests import TeachRequest
from napari_meduet.pipelines.segmentation.finetuned import ANY_CHOICE, Taught, TaughtSoFar
from napari_meduet.pipelines.segmentation.training_samples import (
    LabelMap,
    SpatialAugmentation,
    TrainingSample,
    choose_example,
    draw_crop,
    make_example,
    read_crop,
)

FEATURES = 32
ROWS = 4  # crops a step
LEARNING_RATE = 4e-3
ENCODER_RATE = 0.15  # of it: the encoder knows something already
BETAS = (0.9, 0.99)  # gradients of the last hundred steps: there are few
LAST_RATE = 0.1  # of it, at the last step
WARMUP = 0.05  # of the steps
CLIP = 1.0
EMA_DECAY = 0.98  # looks back on 50 steps: a teacher waits minutes, not days
POSES_AIMED_AT = 12  # over all scans
TOLD_EVERY = 5  # steps


def teach(
    request: TeachRequest,
    on_progress: OnProgress = null_progress,
    on_curve: Callable[[TaughtSoFar], None] = lambda point: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Taught:
    """A segmenter that learnt the examples.

    Args:
        on_curve: is told how the loss falls.
        should_stop: asked at every step; what was learnt until then is returned.

    Raises:
        InputError: a scan or its labels cannot be used, the examples show nothing that is to be learnt, or
            the loss is no longer finite.
    """
    preparing, learning = parts(on_progress, 15, 85)
    preparing(0.0, "reading the model")
    model = load_model(request.model, request.device)
    scans = list(_prepared(model, request, preparing))
    generator = Generator().manual_seed(request.seed)
    examples = _examples(model, scans, _meaning(request), generator, preparing)
    modalities: tuple[Modality, ...] = tuple(sorted({scan.volume.modality for scan, _ in scans}))
    classes = (
        MaskClass(label=0, name="background"),
        *(MaskClass(label=number, name=name) for number, name in sorted(request.names.items())),
    )
    torch.manual_seed(request.seed)
    objective = SegmentationObjective(
        FinetuningConfig(total_steps=request.steps, ema_decay=EMA_DECAY, encoder_rate=ENCODER_RATE),
        _begun(model, classes, modalities),
    )
    objective.to(model.device)
    steps = _learn(objective, examples, request, model, generator, learning, on_curve, should_stop)
    learning(1.0, "done")
    network = objective.teacher.eval().half().float()  # as it will be saved
    return Taught(
        model=model,
        model_folder=Path(request.model) if request.model is not None else demo_model_path(),
        network=network,
        classes=classes,
        modalities=modalities,
        steps=steps,
        training={
            "taught": True,
            "num_scans": len(scans),
            "strokes_only": request.background is not None,
            "steps": request.steps,
            "steps_taken": steps,
            "seed": request.seed,
        },
    )


def _prepared(
    model: Model, request: TeachRequest, on_progress: OnProgress
) -> Iterator[tuple[PreparedScan, np.ndarray]]:
    """The scans and their labels, read and checked."""
    for number, (scan, labels) in enumerate(request.examples):
        on_progress(0.2 * number / len(request.examples), "reading the examples")
        prepared = prepare_scan(model, read_scan(scan, ANY_CHOICE))
        yield prepared, labels_on(prepared.volume, labels)


def _meaning(request: TeachRequest) -> LabelMap:
    classes = {number: place for place, number in enumerate(sorted(request.names), start=1)}
    if request.background is None:
        return LabelMap(classes=classes, annotated=(True,) * (len(classes) + 1))
    return LabelMap(
        classes=classes | {request.background: 0},
        annotated=(True,) * (len(classes) + 1),
        ignored=frozenset({0}),
    )


def _examples(
    model: Model,
    scans: Sequence[tuple[PreparedScan, np.ndarray]],
    meaning: LabelMap,
    generator: Generator,
    on_progress: OnProgress,
) -> list[TrainingSample]:
    """Every scan in its own pose and in some others."""
    poses = max(1, POSES_AIMED_AT // len(scans))
    wanted = [(scan, labels, number) for number in range(poses) for scan, labels in scans]
    examples = []
    for stage, (scan, labels, number) in zip(
        parts(part(on_progress, 0.2, 1.0), *[1] * len(wanted)), wanted, strict=True
    ):
        pose = (
            SpatialAugmentation()
            if number == 0
            else SpatialAugmentation.drawn(generator, scan.volume.modality)
        )
        examples.append(make_example(model, scan, labels, meaning, pose, stage))
    return examples


def _begun(model: Model, classes: Sequence[MaskClass], modalities: Sequence[Modality]) -> LatentUNETR:
    """The network before it is taught: the model's segmenter as far as it fits, or MeDUET's encoder."""
    known, card = model.segmenter, model.card.segmenter
    if (
        known is None
        or card is None
        or not set(modalities) <= set(card.modalities)
        or scans_read(known, model) > 1
    ):
        try:
            config = UNETRConfig(
                num_classes=len(classes), features=FEATURES, head="light", **sizes_of(model.meduet.config)
            )
        except ValueError as error:
            raise InputError(f"{error} Choose a model with a larger encoder.") from error
        network = build_segmenter(config, model.card.tokenizer)
        init_segmenter(network, model, "meduet")
        return network
    network = build_segmenter(replace(known.config, num_classes=len(classes)), model.card.tokenizer)
    made, given = network.state_dict(), known.state_dict()
    fitting = {name: given[name] for name, tensor in made.items() if given[name].shape == tensor.shape}
    network.load_state_dict(made | fitting)
    return network


def _batch(
    examples: Sequence[TrainingSample], objective: SegmentationObjective, model: Model, generator: Generator
) -> SegmentationBatch:
    """Crops of examples."""
    size: Position = objective.student.config.latent_shape[1:]
    rows = []
    for _ in range(ROWS):
        number, around = choose_example([example.classes for example in examples], generator)
        example = examples[number]
        crop = draw_crop(example, around, size, model.tokenizer.stride, generator)
        row = read_crop(example, crop, size, model.tokenizer.stride, generator)
        rows.append(row | objective.config.draw(None, generator))
    return cast(
        SegmentationBatch,
        {name: torch.stack([row[name] for row in rows]).to(model.device) for name in rows[0]},
    )


def _learn(
    objective: SegmentationObjective,
    examples: Sequence[TrainingSample],
    request: TeachRequest,
    model: Model,
    generator: Generator,
    on_progress: OnProgress,
    on_curve: Callable[[TaughtSoFar], None],
    should_stop: Callable[[], bool],
) -> int:
    """Train until the steps are done or somebody is satisfied; how many were taken.

    Raises:
        InputError: the loss is no longer finite.
    """
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(objective.rate_of(name), []).append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": of, "share": share} for share, of in groups.items()], lr=LEARNING_RATE, betas=BETAS
    )
    began, told, losses = time.monotonic(), 0, []
    objective.train()
    for step in range(request.steps):
        report = partial(on_progress, step / request.steps, f"learning, step {step + 1} of {request.steps}")
        report()
        if should_stop():
            return step
        batch = _batch(examples, objective, model, generator)
        with interruptible(objective.student, report):
            loss = objective(batch, step)["total"]
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise InputError(
                f"The training went astray at step {step + 1}: its loss is no longer finite. Check the "
                "scans' values, and train again."
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.student.parameters(), CLIP)
        for group in optimizer.param_groups:
            rate = LEARNING_RATE * warmup_cosine(step, request.steps, end=LAST_RATE, warmup=WARMUP)
            group["lr"] = rate * group["share"]
        optimizer.step()
        optimizer.zero_grad()
        objective.finish_step(step)
        if (step + 1) % TOLD_EVERY == 0 or step + 1 == request.steps:
            recent = losses[told:]
            on_curve(
                TaughtSoFar(
                    step=step + 1,
                    loss=sum(recent) / len(recent),
                    dice=_dice(objective, cast(SegmentationBatch, batch)),
                    seconds=time.monotonic() - began,
                )
            )
            told = len(losses)
    return request.steps


@torch.no_grad()
def _dice(objective: SegmentationObjective, batch: SegmentationBatch) -> float | None:
    """Mean Dice over the structures that a batch shows, of what the average of the weights predicts."""
    scores, target = objective.scores(objective.teacher, batch["latent"], batch), batch["target"]
    predicted = scores.argmax(dim=1).masked_fill(target == IGNORED, 0)
    shown = [k for k in range(1, scores.shape[1]) if bool((target == k).any())]
    overlaps = [float(soft_dice((predicted == k).float(), target == k)) for k in shown]
    return sum(overlaps) / len(overlaps) if overlaps else None
