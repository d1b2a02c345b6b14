"""The methods that a segmentation evaluation compares: networks, a threshold, and atlases.

Each method returns labels on the grid of the scan, with their names. `LabelTask` maps the names of
predictions and of the truth to the classes of the task.
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

MAX_ATLASES = 3  # for each class; more atlases add time but little accuracy


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """Labels (X, Y, Z) on the grid of a scan, and the names of the labels that the method knows."""

    labels: np.ndarray
    names: Names


@dataclass(frozen=True, kw_only=True, eq=False)
class Method:
    """A segmentation method.

    Attributes:
        name: name in tables.
        origin: what the method consists of: digests of a model, or the number of atlases.
        predict: function that segments a scan, or the sequences of one patient together.
    """

    name: str
    origin: Mapping[str, str | int]
    predict: Callable[[LabelledScan, Sequence[PreparedScan]], Prediction]


def open_networks(paths: Sequence[Path], device: str) -> list[tuple[Model, str]]:
    """Load models with segmenters, and return each with its unique name.

    Raises:
        InputError: a model cannot be read or has no segmenter, or two models have the same name.
    """
    models = [(load_segmenting_model(path, device), path.resolve().name) for path in paths]
    names = [name for _, name in models]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise InputError(
            f"Two of the models are in folders with the name {repeated.pop()}. Rename one folder, because "
            "the tables use these names."
        )
    return models


def segmenter_method(model: Model, name: str, prepared_by: Model) -> Method:
    """Return the segmenter of a model as a method.

    Args:
        prepared_by: the model that prepared the scans; a different model prepares them again.
    """
    network, card = model.segmenter, model.card.segmenter
    assert network is not None, "open_networks accepts only models with a segmenter"
    assert card is not None
    names = {k: each.name for k, each in enumerate(card.classes) if k}

    def predict(scan: LabelledScan, prepared: Sequence[PreparedScan]) -> Prediction:
        if (expected := scans_read(network, model)) != len(prepared):
            raise InputError(
                f"The segmenter of {name} reads {expected} scans of a patient at once, not "
                f"{len(prepared)}. Name the sequences with --config (data.sequences)."
            )
        if model.sha256 != prepared_by.sha256:
            prepared = [prepare_scan(model, each.volume) for each in prepared]
        check_segmentation_memory(model, network, prepared[0].volume)
        return Prediction(labels=segment_prepared(model, network, prepared), names=names)

    origin = {"model_sha256": model.sha256, "segmenter_sha256": model.card.files[SEGMENTER_FILE].sha256}
    return Method(name=name, origin=origin, predict=predict)


def threshold_method() -> Method:
    """Return the threshold method for the lungs in CT."""

    def predict(scan: LabelledScan, prepared: Sequence[PreparedScan]) -> Prediction:
        volume = prepared[0].volume
        names = threshold_baseline.NAMES if volume.modality == "CT" else {}
        return Prediction(labels=threshold_baseline.threshold_lungs(volume), names=names)

    return Method(name="threshold", origin={}, predict=predict)


def atlas_method(model: Model, task: LabelTask, labelled: Sequence[LabelledScan]) -> Method:
    """Return the registration of labelled scans with the modality and sequence of the scan as a method.

    If the scan has several sequences, the first is registered.

    Args:
        model: the model that prepares the scans.
        labelled: labelled scans of the train split.
    """
    chosen = _choose_atlases(task, labelled)
    loaded: dict[Path, Atlas] = {}

    def load_atlas(scan: LabelledScan) -> Atlas:
        path = scan.first.path
        if path not in loaded:
            (first, *_), labels = prepared_scan(model, scan)
            meaning = task.meaning(scan.names)
            classes = first.grid.labels_to_working(meaning.target(labels))
            loaded[path] = Atlas(values=first.units, classes=classes, annotated=meaning.annotated)
        return loaded[path]

    def predict(scan: LabelledScan, prepared: Sequence[PreparedScan]) -> Prediction:
        first = prepared[0]
        atlases = [load_atlas(each) for each in chosen if _kind(each) == _kind(scan)]
        if not atlases:
            return Prediction(labels=np.zeros(first.volume.voxels.shape, np.uint8), names={})
        known = np.any([atlas.annotated for atlas in atlases], axis=0)
        return Prediction(
            labels=atlas_classes(first.units, first.grid, model.card.working_spacing_mm, atlases),
            names={k: name for k, name in enumerate(task.names) if k and known[k]},
        )

    return Method(name="atlas", origin={"num_atlases": len(chosen)}, predict=predict)


def _kind(scan: LabelledScan) -> tuple[str, str | None]:
    return scan.first.modality, scan.first.sequence


def _choose_atlases(task: LabelTask, labelled: Sequence[LabelledScan]) -> list[LabelledScan]:
    """Choose the first scans, until each class of each modality and sequence has three atlases."""
    chosen: list[LabelledScan] = []
    known: dict[tuple[str, str | None], np.ndarray] = {}
    for scan in labelled:
        counts = known.setdefault(_kind(scan), np.zeros(len(task.names), np.int64))
        annotated = np.array(task.meaning(scan.names).annotated)
        if (counts[1:][annotated[1:]] < MAX_ATLASES).any():
            counts += annotated
            chosen.append(scan)
    return chosen
