"""Who is asked where the structures of a scan are: networks, a threshold, atlases.

Each answers with labels on the scan's own grid and their names; which of a task's classes these are, the task
says, of an answer as of the truth.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from meduet_training.data.label_names import Names
from meduet_training.data.label_task import LabelTask
from meduet_training.data.labelled_scans import LabelledScan
from meduet_training.data.scan import read_scan
from meduet_training.evaluation import threshold_baseline
from meduet_training.evaluation.atlas_baseline import Atlas, atlas_classes
from napari_meduet.errors import InputError
from napari_meduet.models.card import SEGMENTER_FILE
from napari_meduet.models.files import Model
from napari_meduet.pipelines.encoding import prepare_scan
from napari_meduet.pipelines.labels import labels_on
from napari_meduet.pipelines.memory import check_segmentation_memory
from napari_meduet.pipelines.segmentation import load_segmenting_model, segment_prepared
from napari_meduet.volumes.volume import Volume

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
        answer: where the structures of a scan are.
    """

    name: str
    origin: Mapping[str, str | int]
    answer: Callable[[LabelledScan, Volume], Answer]


def network_method(model: Model, name: str) -> Method:
    """A model's segmenter."""
    network, card = model.segmenter, model.card.segmenter
    assert network is not None, "open_networks refuses models without"
    assert card is not None

    def answer(scan: LabelledScan, volume: Volume) -> Answer:
        check_segmentation_memory(model, network, volume)
        indices = segment_prepared(model, network, prepare_scan(model, volume))
        return Answer(labels=indices, names={k: each.name for k, each in enumerate(card.classes) if k})

    origin = {"model_sha256": model.sha256, "segmenter_sha256": model.card.files[SEGMENTER_FILE].sha256}
    return Method(name=name, origin=origin, answer=answer)


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


def threshold_method() -> Method:
    """The lungs of CT by a threshold."""

    def answer(scan: LabelledScan, volume: Volume) -> Answer:
        names = threshold_baseline.NAMES if volume.modality == "CT" else {}
        return Answer(labels=threshold_baseline.threshold_lungs(volume), names=names)

    return Method(name="threshold", origin={}, answer=answer)


def atlas_method(model: Model, task: LabelTask, labelled: Sequence[LabelledScan]) -> Method:
    """Registration of labelled scans, of those of a scan's own modality and sequence.

    Args:
        model: its profiles and working grid are used.
        labelled: none of them is judged.
    """
    chosen = _enough(task, labelled)
    opened: dict[Path, Atlas] = {}

    def opened_atlas(scan: LabelledScan) -> Atlas:
        if scan.labels_path not in opened:
            volume = read_scan(scan.first)
            prepared, meaning = prepare_scan(model, volume), task.meaning(scan.names)
            classes = meaning.target(labels_on(volume, scan.labels_path))
            opened[scan.labels_path] = Atlas(
                units=prepared.units,
                classes=prepared.grid.labels_to_working(classes),
                annotated=meaning.annotated,
            )
        return opened[scan.labels_path]

    def answer(scan: LabelledScan, volume: Volume) -> Answer:
        atlases = [opened_atlas(each) for each in chosen if _kind(each) == _kind(scan)]
        if not atlases:
            return Answer(labels=np.zeros(volume.voxels.shape, np.uint8), names={})
        prepared = prepare_scan(model, volume)
        spacing = model.card.working_spacing_mm
        known = np.any([atlas.annotated for atlas in atlases], axis=0)
        return Answer(
            labels=atlas_classes(prepared.units, prepared.grid, spacing, atlases),
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
