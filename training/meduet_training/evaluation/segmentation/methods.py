"""Who is asked where the structures of a scan are: networks, a threshold, atlases.

Each answers with labels on the scan's own grid and their names; which of a task's classes these are, the task
says, of an answer as of the truth.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from meduet_training.data.caches.training_samples import prepared_scan
from meduet_training.data.labels.names import Names
from meduet_training.data.labels.scans import LabelledScan
from meduet_training.data.labels.task import LabelTask
from meduet_training.evaluation.segmentation import threshold_baseline
from meduet_training.evaluation.segmentation.atlas_baseline import Atlas, atlas_classes
from napari_meduet.errors import InputError
from napari_meduet.models.card import SEGMENTER_FILE
from napari_meduet.models.model import Model
from napari_meduet.models.segmenters import scans_read
from napari_meduet.pipelines.common.encoding import PreparedScan, prepare_scan
from napari_meduet.pipelines.common.memory import check_segmentation_memory
from napari_meduet.pipelines.segmentation.session import load_segmenting_model, segment_prepared

MOST_ATLASES = 3  # for a class: more take longer than they help


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """Labels (X, Y, Z) on a scan's own grid, and the names of those that the method knows."""

    labels: np.ndarray
    names: Names


@dataclass(frozen=True, kw_only=True, eq=False)
class Method:
    """What is judged.

    Attributes:
        name: in tables.
        origin: what a figure must not be quoted without: digests of a model, number of atlases.
        answer: where the structures of a scan are, or of sequences that are seen together.
    """

    name: str
    origin: Mapping[str, str | int]
    answer: Callable[[LabelledScan, Sequence[PreparedScan]], Answer]


def open_networks(paths: Sequence[Path], device: str) -> list[tuple[Model, str]]:
    """Models with segmenters, and a name for each that tells them apart.

    Raises:
        InputError: one cannot be read, has no segmenter, or two have one name.
    """
    models = [(load_segmenting_model(path, device), path.resolve().name) for path in paths]
    names = [name for _, name in models]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(
            f"Two of the models are in folders called {twice.pop()}; rename one, so that tables tell them "
            "apart."
        )
    return models


def network_method(model: Model, name: str, prepared_by: Model) -> Method:
    """A model's segmenter.

    Args:
        prepared_by: the model for which scans are prepared; another prepares them for itself.
    """
    network, card = model.segmenter, model.card.segmenter
    assert network is not None, "open_networks refuses models without"
    assert card is not None
    names = {k: each.name for k, each in enumerate(card.classes) if k}

    def answer(scan: LabelledScan, prepared: Sequence[PreparedScan]) -> Answer:
        if (wanted := scans_read(network, model)) != len(prepared):
            raise InputError(
                f"The segmenter of {name} reads {wanted} scans of a patient at once, not "
                f"{len(prepared)}; say which sequences with --config (data.sequences)."
            )
        if model.sha256 != prepared_by.sha256:
            prepared = [prepare_scan(model, each.volume) for each in prepared]
        check_segmentation_memory(model, network, prepared[0].volume)
        return Answer(labels=segment_prepared(model, network, prepared), names=names)

    origin = {"model_sha256": model.sha256, "segmenter_sha256": model.card.files[SEGMENTER_FILE].sha256}
    return Method(name=name, origin=origin, answer=answer)


def threshold_method() -> Method:
    """The lungs of CT by a threshold."""

    def answer(scan: LabelledScan, prepared: Sequence[PreparedScan]) -> Answer:
        volume = prepared[0].volume
        names = threshold_baseline.NAMES if volume.modality == "CT" else {}
        return Answer(labels=threshold_baseline.threshold_lungs(volume), names=names)

    return Method(name="threshold", origin={}, answer=answer)


def atlas_method(model: Model, task: LabelTask, labelled: Sequence[LabelledScan]) -> Method:
    """Registration of labelled scans, of those of a scan's own modality and sequence.

    Of sequences that are seen together, the first is registered.

    Args:
        model: for which scans are prepared.
        labelled: none of them is judged.
    """
    chosen = _enough(task, labelled)
    opened: dict[Path, Atlas] = {}

    def opened_atlas(scan: LabelledScan) -> Atlas:
        path = scan.first.path
        if path not in opened:
            (first, *_), labels = prepared_scan(model, scan)
            meaning = task.meaning(scan.names)
            classes = first.grid.labels_to_working(meaning.target(labels))
            opened[path] = Atlas(units=first.units, classes=classes, annotated=meaning.annotated)
        return opened[path]

    def answer(scan: LabelledScan, prepared: Sequence[PreparedScan]) -> Answer:
        first = prepared[0]
        atlases = [opened_atlas(each) for each in chosen if _kind(each) == _kind(scan)]
        if not atlases:
            return Answer(labels=np.zeros(first.volume.voxels.shape, np.uint8), names={})
        known = np.any([atlas.annotated for atlas in atlases], axis=0)
        return Answer(
            labels=atlas_classes(first.units, first.grid, model.card.working_spacing_mm, atlases),
            names={k: name for k, name in enumerate(task.names) if k and known[k]},
        )

    return Method(name="atlas", origin={"num_atlases": len(chosen)}, answer=answer)


def _kind(scan: LabelledScan) -> tuple[str, str | None]:
    return scan.first.modality, scan.first.sequence


def _enough(task: LabelTask, labelled: Sequence[LabelledScan]) -> list[LabelledScan]:
    """The first scans, until each class that any of a kind knows has so many atlases."""
    chosen: list[LabelledScan] = []
    known: dict[tuple[str, str | None], np.ndarray] = {}
    for scan in labelled:
        counts = known.setdefault(_kind(scan), np.zeros(len(task.names), np.int64))
        annotated = np.array(task.meaning(scan.names).annotated)
        if (counts[1:][annotated[1:]] < MOST_ATLASES).any():
            counts += annotated
            chosen.append(scan)
    return chosen
