"""PNG pictures of test scans: the scan, its labels, and the result of every method, side by side."""

from pathlib import Path

import numpy as np

from meduet_training.data.labels.task import LabelTask
from meduet_training.evaluation.segmentation.evaluate import SegmentedScan
from meduet_training.reporting.panels import Row, Tile, draw_panel
from napari_meduet.core.analysis.finetuning import IGNORED
from napari_meduet.pipelines.segmentation.label_colours import label_colour
from napari_meduet.pipelines.segmentation.label_overlay import fullest_places, plane_picture
from napari_meduet.volumes.files import write_atomically

AXIAL, CORONAL = 2, 1  # axes that the planes cut
WIDTH = 320  # pixels of a plane
NOTE = (
    "The axial and the coronal plane with most labelled voxels, as radiology shows them: the patient's "
    "right on the left. Structures that the truth does not name may be right and are not scored."
)


def write_segmentation_picture(segmented: SegmentedScan, task: LabelTask, folder: Path) -> Path:
    """Write `scan_1.png` and so on: a column for the scan, for its labels and for each method."""
    label_of = np.zeros(IGNORED + 1, np.int32)  # by class; voxels without a label are shown as background
    label_of[: len(task.labels)] = task.labels
    truth = label_of[segmented.truth]
    predicted = {method: label_of[classes] for method, classes in segmented.predicted.items()}
    columns = {"scan": np.zeros_like(truth), "truth": truth, **predicted}
    places = fullest_places(segmented.volume, truth)
    rows = [
        Row(
            tiles=[
                Tile(image=np.asarray(plane_picture(segmented.volume, labels, axis, places[axis])))
                for labels in columns.values()
            ]
        )
        for axis in (AXIAL, CORONAL)
    ]
    visible = {int(label) for labels in columns.values() for label in np.unique(labels)} - {0}
    annotated = task.meaning(segmented.scan.names).annotated
    legend = [
        (label_colour(label), name if is_annotated else f"{name} (not in the truth)")
        for label, name, is_annotated in zip(task.labels, task.names, annotated, strict=True)
        if label in visible
    ]
    title = f"scan {segmented.number}  {segmented.scan.first.domain}"
    path = folder / f"scan_{segmented.number}.png"
    with write_atomically(path, overwrite=True) as temporary:
        picture = draw_panel(title, NOTE, rows, list(columns), legend=legend, tile_width=WIDTH)
        picture.save(temporary, format="PNG")
    return path
