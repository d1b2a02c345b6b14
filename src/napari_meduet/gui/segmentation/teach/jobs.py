"""Calls that the Teach page runs on the dock's worker thread. torch is imported inside them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_meduet.errors import InputError, OnProgress
from napari_meduet.gui.common.label_counts import count_labels
from napari_meduet.gui.segmentation.teach.label_names import default_name
from napari_meduet.pipelines.common.progress import part
from napari_meduet.pipelines.requests import TeachRequest
from napari_meduet.volumes.volume import Volume

if TYPE_CHECKING:
    from napari_meduet.pipelines.segmentation.finetuned import Taught, TaughtSoFar
    from napari_meduet.pipelines.segmentation.folder import FolderReport
    from napari_meduet.pipelines.segmentation.session import SegmentationResult

ScanLater = Callable[[], Volume]


def finetune_on_samples(
    examples: Sequence[tuple[ScanLater, np.ndarray]],
    names: Mapping[int, str],
    background: int | None,
    options: Mapping[str, Any],
    stop: Event,
    on_point: "Callable[[TaughtSoFar], None]",
    on_progress: OnProgress,
) -> "Taught":
    """Fine-tune until all steps are done or `stop` is set, and return the fine-tuned segmenter.

    Args:
        examples: Functions that convert a layer to a scan, each with labels (X, Y, Z) on the scan's grid.
        names: Names of labels. Unpainted labels are ignored; painted labels without a name get a default.
        background: Label of strokes on the background; None if unpainted voxels are background.
        options: Further fields of the request.

    Raises:
        InputError: Nothing is painted, or the pipeline refuses the request.
    """
    from napari_meduet.pipelines.segmentation.finetuning import teach

    painted = {label for _, labels in examples for label in count_labels(labels)} - {background}
    if not painted:
        raise InputError("Nothing is painted yet: paint with the brush on a few slices of each sample.")
    request = TeachRequest(
        [(scan(), labels) for scan, labels in examples],
        {label: names.get(label) or default_name(label) for label in sorted(painted)},
        background=background,
        **options,
    )
    return teach(request, on_progress, on_curve=on_point, should_stop=stop.is_set)


def apply_to_scans(
    segmenter: "Taught",
    scans: Sequence[ScanLater],
    on_result: "Callable[[tuple[int, SegmentationResult]], None]",
    on_progress: OnProgress,
) -> dict[int, str]:
    """Segment scans one by one, and call `on_result` with the index and the result of each.

    Returns:
        The error message of each scan that cannot be segmented, by index. All other scans are segmented.
    """
    failed = {}
    for number, scan in enumerate(scans):
        stage = part(on_progress, number / len(scans), (number + 1) / len(scans))
        try:
            on_result((number, segmenter.segment(scan(), on_progress=stage)))
        except InputError as error:
            failed[number] = str(error)
    return failed


def apply_to_folder(
    segmenter: "Taught", folder: Path, target: Path, on_progress: OnProgress
) -> "FolderReport":
    """Segment every scan in a folder and write the labels into the folder `target`."""
    from napari_meduet.pipelines.segmentation.folder import segment_folder

    def segment(scan: Volume, stage: OnProgress) -> "SegmentationResult":
        return segmenter.segment(scan, on_progress=stage)

    return segment_folder(segment, folder, target, on_progress)


def save_model(segmenter: "Taught", folder: Path, on_progress: OnProgress) -> Path:
    """Write the fine-tuned segmenter as a model folder, and return the folder."""
    on_progress(0.0, "writing the model")
    segmenter.save(folder, name=folder.name)
    return folder
