"""What Teach has computed on its worker thread; torch is imported there."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_meduet.errors import InputError, OnProgress
from napari_meduet.gui.segmentation.label_places import label_places
from napari_meduet.gui.segmentation.teach.names import default_name
from napari_meduet.pipelines.common.progress import part
from napari_meduet.pipelines.requests import TeachRequest
from napari_meduet.volumes.volume import Volume

if TYPE_CHECKING:
    from napari_meduet.pipelines.segmentation.finetuned import Taught, TaughtSoFar
    from napari_meduet.pipelines.segmentation.folder import FolderReport
    from napari_meduet.pipelines.segmentation.session import SegmentationResult

ScanLater = Callable[[], Volume]


def teach_examples(
    examples: Sequence[tuple[ScanLater, np.ndarray]],
    names: Mapping[int, str],
    background: int | None,
    options: Mapping[str, Any],
    stop: Event,
    on_point: "Callable[[TaughtSoFar], None]",
    on_progress: OnProgress,
) -> "Taught":
    """Learn until the steps are over or `stop` is set; what was learnt by then comes back.

    Args:
        examples: scans, made of their layers here, each with labels (X, Y, Z) on its voxels.
        names: of labels; some may not be painted, and some that are may have been given none yet.
        background: the label of strokes on it, as the request has it.
        options: what the request says beside these.

    Raises:
        InputError: nothing is painted, or as `teach`.
    """
    from napari_meduet.pipelines.segmentation.finetuning import teach

    painted = {label for _, labels in examples for label in label_places(labels)} - {background}
    if not painted:
        raise InputError("Nothing is painted yet: take the brush, and paint on a few slices of each example.")
    request = TeachRequest(
        [(scan(), labels) for scan, labels in examples],
        {label: names.get(label) or default_name(label) for label in sorted(painted)},
        background=background,
        **options,
    )
    return teach(request, on_progress, on_curve=on_point, should_stop=stop.is_set)


def apply_to_scans(
    taught: "Taught",
    scans: Sequence[ScanLater],
    on_result: "Callable[[tuple[int, SegmentationResult]], None]",
    on_progress: OnProgress,
) -> dict[int, str]:
    """Segment scans one by one, each handed on with its number as soon as it is done.

    Returns:
        Why not, for each that cannot be segmented; it does not stop the others.
    """
    failed = {}
    for number, scan in enumerate(scans):
        stage = part(on_progress, number / len(scans), (number + 1) / len(scans))
        try:
            on_result((number, taught.segment(scan(), on_progress=stage)))
        except InputError as error:
            failed[number] = str(error)
    return failed


def apply_to_folder(taught: "Taught", folder: Path, target: Path, on_progress: OnProgress) -> "FolderReport":
    """Segment every scan of a folder into files of another."""
    from napari_meduet.pipelines.segmentation.folder import segment_folder

    def segment(scan: Volume, stage: OnProgress) -> "SegmentationResult":
        return taught.segment(scan, on_progress=stage)

    return segment_folder(segment, folder, target, on_progress)


def save_model(taught: "Taught", folder: Path, on_progress: OnProgress) -> Path:
    """Write a model folder with what was learnt."""
    on_progress(0.0, "writing the model")
    taught.save(folder, name=folder.name)
    return folder
