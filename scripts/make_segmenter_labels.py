"""The labels that the embedded segmenter learns from, as a folder for `meduet-train segmenter`.

    .venv/bin/python scripts/make_segmenter_labels.py DATA caches/segmenter_labels

Two scans of the train split have labels of the chest. In `ts_example` every structure of TotalSegmentator was
looked for, so its heart, which lies above it, is known to be absent; the lobes of its lungs are joined, but
there are only the bases. In `ts_cta_crop` nobody labelled the lungs: without more, a network learns to call
lung background there. They are labelled by a threshold: air with some tissue in it, in two large parts.
(evaluation/threshold_baseline.py would take a lung that the crop cuts for air outside the body.)

Neither scan shows whole lungs and the air around the patient, and from these two alone a network finds lung
near the heart only. So two scans without labels lend their lungs, by the threshold of that baseline; of
nothing else in them is anything learnt.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import nibabel as nib
import numpy as np
import typer
from scipy.ndimage import binary_closing, binary_opening, gaussian_filter, label

from meduet_training.data.cohort import index_records
from meduet_training.evaluation.masks import LUNG_HU
from meduet_training.evaluation.threshold_baseline import threshold_lungs
from napari_meduet.volumes.files import read_volume, write_atomically

CLASSES = {
    "lung_left": ("lung_left", "lung_upper_lobe_left", "lung_lower_lobe_left"),
    "lung_right": ("lung_right", "lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
    "heart": ("heart",),
    "aorta": ("aorta",),
    "spinal_cord": ("spinal_cord",),
}
LOOKED_FOR = {
    "ts_example": tuple(CLASSES),
    "ts_cta_crop": ("lung_left", "lung_right", "heart", "aorta"),
    "lidc0314": ("lung_left", "lung_right"),
    "tcga_de_a4ma": ("lung_left", "lung_right"),
}
CROPPED = "ts_cta_crop"
AIRWAY_HU = -960.0  # below: air alone
SMOOTHING, OPENING, CLOSING = 0.7, 2, 3  # voxels of 1.5 mm
TESTED = ("lung1_001", "lung1_002")


def main(
    data: Annotated[Path, typer.Argument(help="The folder of the scans and their index.json.")],
    output: Annotated[Path, typer.Argument(help="Where labels and list are written.")],
) -> None:
    """Write the list and the labels; older ones are replaced."""
    output.mkdir(parents=True, exist_ok=True)
    records = [record for record in index_records(data) if record["case"] in (*LOOKED_FOR, *TESTED)]
    listed = [_record(data, output, record) for record in records]
    with write_atomically(output / "index.json", overwrite=True) as temporary:
        temporary.write_text(json.dumps(listed, indent=1), encoding="utf-8")
    typer.echo(f"Wrote {output}.")


def _record(data: Path, output: Path, record: dict[str, Any]) -> dict[str, Any]:
    """A scan of the list, with labels of its own where it is learnt from."""
    here = {"path": os.path.relpath(data / record["path"], output)}
    if record["case"] in TESTED:
        return record | here | {"seg_path": os.path.relpath(data / record["seg_path"], output)}
    labels = _labels(data, record)
    path = output / f"{record['case']}_seg.nii.gz"
    nib.save(labels, path)
    names = {str(number): name for number, name in enumerate(CLASSES, start=1)}
    known = {number: name for number, name in names.items() if name in LOOKED_FOR[record["case"]]}
    return record | here | {"seg_path": path.name, "labels": known}


def _labels(data: Path, record: dict[str, Any]) -> nib.Nifti1Image:
    """The classes of every voxel, by their place in `CLASSES` from 1."""
    if record["seg_path"] is None:
        scan = read_volume(data / record["path"], modality="CT")
        return nib.Nifti1Image(threshold_lungs(scan), scan.affine)
    image = nib.load(data / record["seg_path"])
    given = np.asanyarray(image.dataobj)
    known = LOOKED_FOR[record["case"]]
    classes = np.zeros(given.shape, np.uint8)
    if record["case"] == CROPPED:
        classes[...] = _thresholded_lungs(nib.load(data / record["path"]))
    for number, (name, sources) in enumerate(CLASSES.items(), start=1):
        numbers = [int(label) for label, source in record["labels"].items() if source in sources]
        if name in known and numbers:
            classes[np.isin(given, numbers)] = number
    return nib.Nifti1Image(classes, image.affine)


def _thresholded_lungs(scan: nib.Nifti1Image) -> np.ndarray:
    """1 in the left lung and 2 in the right one, of a scan that shows no air outside the body."""
    values = gaussian_filter(scan.get_fdata(dtype=np.float32), SMOOTHING)
    parts, _ = label(binary_opening((values > AIRWAY_HU) & (values < LUNG_HU), iterations=OPENING))
    largest = [parts == number + 1 for number in np.argsort(np.bincount(parts.ravel())[1:])[-2:]]
    # from left to right in the patient, whichever way the first axis runs
    largest.sort(key=lambda lung: float(scan.affine[0, 0] * np.argwhere(lung)[:, 0].mean()))
    lungs = np.zeros(parts.shape, np.uint8)
    inner = (slice(CLOSING, -CLOSING),) * 3
    for number, lung in enumerate(largest, start=1):
        closed = binary_closing(np.pad(lung, CLOSING, mode="edge"), iterations=CLOSING)[inner]
        lungs[closed & (lungs == 0)] = number
    return lungs


if __name__ == "__main__":
    typer.run(main)
