"""What Teach has computed on its worker thread; torch is imported there."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_meduet.errors import OnProgress
from napari_meduet.pipelines.progress import part
from napari_meduet.pipelines.requests import TeachRequest
from napari_meduet.volumes.volume import Volume

if TYPE_CHECKING:
    from napari_meduet.pipelines.folder_segmentation import FolderReport
    from napari_meduet.pipelines.segmentation import SegmentationResult
    from napari_meduet.pipelines.teaching import Taught, TaughtSoFar

ScanLater = Callable[[], Volume]


def teach_examples(
    examples: Sequence[tuple[ScanLater, np.ndarray]],
    options: Mapping[str, Any],
    stop: Event,
    on_point: "Callable[[TaughtSoFar], None]",
    on_progress: OnProgress,
) -> "Taught":
    """Learn until the steps are over or `stop` is set; what was learnt by then comes back.

    Args:
        examples: scans, made of their layers here, each with labels (X, Y, Z) on its voxels.
        options: what the request says beside the examples.
    """
    from napari_meduet.pipelines.teaching import teach

    request = TeachRequest([(scan(), labels) for scan, labels in examples], **options)
    return teach(request, on_progress, on_curve=on_point, should_stop=stop.is_set)


def apply_to_scans(
    taught: "Taught",
    scans: Sequence[ScanLater],
    on_result: "Callable[[tuple[int, SegmentationResult]], None]",
    on_progress: OnProgress,
) -> int:
    """Segment scans one by one, each handed on with its number as soon as it is done; how many there were."""
    for number, scan in enumerate(scans):
        stage = part(on_progress, number / len(scans), (number + 1) / len(scans))
        on_result((number, taught.segment(scan(), on_progress=stage)))
    return len(scans)


def apply_to_folder(taught: "Taught", folder: Path, target: Path, on_progress: OnProgress) -> "FolderReport":
    """Segment every scan of a folder into files of another."""
    from napari_meduet.pipelines.folder_segmentation import segment_folder

    def segment(scan: Volume, stage: OnProgress) -> "SegmentationResult":
        return taught.segment(scan, on_progress=stage)

    return segment_folder(segment, folder, target, on_progress)


def save_model(taught: "Taught", folder: Path, on_progress: OnProgress) -> Path:
    """Write a model folder with what was learnt."""
    on_progress(0.0, "writing the model")
    taught.save(folder, name=folder.name)
    return folder
