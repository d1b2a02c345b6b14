"""The labels that the embedded segmenter learns from, as a folder for `meduet-train segmenter`.

    .venv/bin/python scripts/make_segmenter_labels.py DATA caches/segmenter_labels

Two scans of the train split have labels of the chest. In `ts_example` every structure of TotalSegmentator was
looked for, so its heart, which lies above it, is known to be absent; the lobes of its lungs are joined. In
`ts_cta_crop` nobody labelled the lungs: without more, a network learns to call lung background there. The
threshold that a person would try first labels them.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import nibabel as nib
import numpy as np
import typer

from meduet_training.data.cohort import index_records
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
}
BY_THRESHOLD = ("ts_cta_crop",)
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
    image = nib.load(data / record["seg_path"])
    given = np.asanyarray(image.dataobj)
    known = LOOKED_FOR[record["case"]]
    classes = np.zeros(given.shape, np.uint8)
    if record["case"] in BY_THRESHOLD:
        classes[...] = threshold_lungs(read_volume(data / record["path"], modality="CT"))
    for number, (name, sources) in enumerate(CLASSES.items(), start=1):
        numbers = [int(label) for label, source in record["labels"].items() if source in sources]
        if name in known and numbers:
            classes[np.isin(given, numbers)] = number
    return nib.Nifti1Image(classes, image.affine)


if __name__ == "__main__":
    typer.run(main)
