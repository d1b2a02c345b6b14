"""Make the labels from which the embedded segmenter is trained, as a folder for `meduet-train segmenter`.

    .venv/bin/python scripts/make_segmenter_labels.py DATA caches/segmenter_labels

Two scans of the train split have labels of the chest. In `ts_example` all structures of TotalSegmentator were
annotated. The scan ends below the heart, so the heart is known to be absent, and it shows only the bases of
the lungs, whose lobes are joined. `ts_cta_crop` has heart and aorta, with contrast medium. Its lungs are not
annotated, so a network would learn that they are background. A network that is trained on these two scans
alone finds lung only near the heart, and no heart without contrast medium. Therefore

- lungs are labelled by a threshold where the result looked right: in the crop, and in five scans without
  labels;
- the crop is used a second time, with the contrast medium removed from its blood;
- its heart is transferred by registration to two scans of whole chests without contrast medium.

A structure that is not annotated in a scan is not used for training in this scan.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import nibabel as nib
import numpy as np
import typer
from scipy.ndimage import binary_closing, binary_dilation, binary_opening, gaussian_filter, label

from meduet_training.data.cohort.scans import index_records
from meduet_training.evaluation.metrics.masks import LUNG_HU
from meduet_training.evaluation.segmentation.atlas_baseline import Atlas, atlas_classes
from meduet_training.evaluation.segmentation.threshold_baseline import threshold_lungs
from napari_meduet.models.loading import load_model
from napari_meduet.pipelines.common.encoding import prepare_scan
from napari_meduet.volumes.files import read_volume, write_atomically
from napari_meduet.volumes.volume import Volume

Record = dict[str, Any]

CLASSES = {
    "lung_left": ("lung_left", "lung_upper_lobe_left", "lung_lower_lobe_left"),
    "lung_right": ("lung_right", "lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
    "heart": ("heart",),
    "aorta": ("aorta",),
    "spinal_cord": ("spinal_cord",),
}
LUNGS = ("lung_left", "lung_right")
ANNOTATED = {
    "ts_example": tuple(CLASSES),
    "ts_cta_crop": (*LUNGS, "heart", "aorta"),
    "lidc0314": (*LUNGS, "heart"),
    "tcga_de_a4ma": (*LUNGS, "heart"),
    "cmbcrc_01068": LUNGS,
    "acrin013": LUNGS,
    "c3l_00189": LUNGS,
}
CROPPED = "ts_cta_crop"
HEART = tuple(CLASSES).index("heart") + 1
AIRWAY_HU = -960.0  # below this, voxels contain only air
SMOOTHING, OPENING, CLOSING = 0.7, 2, 3  # voxels of 1.5 mm
TRACHEA_HU, TRACHEA_MM3, SMOOTHING_MM = -900.0, 3000.0, 1.5
BETWEEN = (0.35, 0.65)  # fraction of the way from the middle of one lung to that of the other
BLOOD = (
    *("aorta", "brachiocephalic_trunk", "common_carotid_artery_left", "subclavian_artery_left"),
    *("celiac_trunk", "superior_mesenteric_artery", "heart", "pulmonary_artery"),
)
# HU of blood without contrast medium, lower limit of soft tissue, and largest kept deviation (noise).
BLOOD_HU, TISSUE_HU, NOISE_HU = 45.0, 0.0, 40.0
EDGE, LOCAL = 2, 1.5  # voxels
TEST_CASES = ("lung1_001", "lung1_002")


def main(
    data: Annotated[Path, typer.Argument(help="Folder of the scans, with an index.json.")],
    output: Annotated[Path, typer.Argument(help="Folder for the labels and their index.json.")],
) -> None:
    """Write the index, the labels and a scan without contrast medium. Existing files are replaced."""
    output.mkdir(parents=True, exist_ok=True)
    records = {record["case"]: record for record in index_records(data)}
    listed = [
        each
        for case in ANNOTATED
        for each in _training_records(data, output, records[case], records[CROPPED])
    ]
    listed += [
        records[case]
        | {key: os.path.relpath(data / records[case][key], output) for key in ("path", "seg_path")}
        for case in TEST_CASES
    ]
    with write_atomically(output / "index.json", overwrite=True) as temporary:
        temporary.write_text(json.dumps(listed, indent=1), encoding="utf-8")
    typer.echo(f"Wrote {output}.")


def _training_records(data: Path, output: Path, record: Record, cropped: Record) -> Iterator[Record]:
    """Yield the record of a scan with its new labels; for the crop, also one without contrast medium."""
    case = record["case"]
    labels = f"{case}_seg.nii.gz"
    nib.save(_labels(data, record, cropped), output / labels)
    names = {str(number): name for number, name in enumerate(CLASSES, start=1) if name in ANNOTATED[case]}
    labelled = record | {"seg_path": labels, "labels": names}
    yield labelled | {"path": os.path.relpath(data / record["path"], output)}
    if case == CROPPED:
        plain = f"{case}_plain.nii.gz"
        nib.save(_without_contrast(data, record), output / plain)
        yield labelled | {"case": f"{case}_plain", "path": plain}


def _labels(data: Path, record: Record, cropped: Record) -> nib.Nifti1Image:
    """Return the class of each voxel: the position in `CLASSES`, counted from 1; 0 is background."""
    annotated = ANNOTATED[record["case"]]
    if record["seg_path"] is None:
        scan = read_volume(data / record["path"], modality="CT")
        classes = _without_trachea(threshold_lungs(scan), scan)
        if "heart" in annotated:
            classes[_registered_heart(data, record, cropped) & (classes == 0)] = HEART
        return nib.Nifti1Image(classes, scan.affine)
    image = nib.load(data / record["seg_path"])
    classes = np.zeros(image.shape, np.uint8)
    if record["case"] == CROPPED:
        classes[...] = _thresholded_lungs(nib.load(data / record["path"]))
    for number, (name, sources) in enumerate(CLASSES.items(), start=1):
        if name in annotated:
            classes[_mask(image, record, sources)] = number
    return nib.Nifti1Image(classes, image.affine)


def _mask(image: nib.Nifti1Image, record: Record, names: tuple[str, ...]) -> np.ndarray:
    """Return where the labels of a record show one of these structures."""
    return np.isin(
        np.asanyarray(image.dataobj),
        [int(number) for number, name in record["labels"].items() if name in names],
    )


def _thresholded_lungs(scan: nib.Nifti1Image) -> np.ndarray:
    """Return 1 in the left lung and 2 in the right one, for a scan without air outside the body.

    evaluation/segmentation/threshold_baseline.py cannot be used for the crop: it would count a lung at the
    border of the scan as air outside the body.
    """
    values = gaussian_filter(scan.get_fdata(dtype=np.float32), SMOOTHING)
    parts, _ = label(binary_opening((values > AIRWAY_HU) & (values < LUNG_HU), iterations=OPENING))
    largest = [parts == number + 1 for number in np.argsort(np.bincount(parts.ravel())[1:])[-2:]]
    # Sorted from the left to the right of the patient, for both directions of the first axis.
    largest.sort(key=lambda lung: float(scan.affine[0, 0] * np.argwhere(lung)[:, 0].mean()))
    lungs = np.zeros(parts.shape, np.uint8)
    for number, lung in enumerate(largest, start=1):
        lungs[_closed(lung) & (lungs == 0)] = number
    return lungs


def _without_trachea(lungs: np.ndarray, scan: Volume) -> np.ndarray:
    """Return the lungs of a threshold without the trachea between them."""
    values = gaussian_filter(scan.values(), [SMOOTHING_MM / spacing for spacing in scan.spacing_mm])
    parts, count = label(binary_opening((lungs > 0) & (values < TRACHEA_HU), iterations=OPENING))
    left, right = (float(np.argwhere(lungs == number)[:, 0].mean()) for number in (1, 2))
    for number in range(1, count + 1):
        part = parts == number
        position = (float(np.argwhere(part)[:, 0].mean()) - left) / (right - left)
        if part.sum() * np.prod(scan.spacing_mm) > TRACHEA_MM3 and BETWEEN[0] < position < BETWEEN[1]:
            lungs[binary_dilation(part, iterations=OPENING)] = 0
    return lungs


def _closed(mask: np.ndarray) -> np.ndarray:
    """Return the mask with small holes closed."""
    inner = (slice(CLOSING, -CLOSING),) * mask.ndim
    return binary_closing(np.pad(mask, CLOSING, mode="edge"), iterations=CLOSING)[inner]


def _registered_heart(data: Path, record: Record, cropped: Record) -> np.ndarray:
    """Return the heart of the crop, registered to another scan."""
    model = load_model(None, "cpu")
    scan, source = (
        prepare_scan(model, read_volume(data / each["path"], modality="CT")) for each in (record, cropped)
    )
    heart = _mask(nib.load(data / cropped["seg_path"]), cropped, ("heart",))
    atlas = Atlas(
        values=source.units,
        classes=source.grid.labels_to_working(heart.astype(np.uint8)),
        annotated=(True, True),
    )
    return _closed(atlas_classes(scan.units, scan.grid, model.card.working_spacing_mm, [atlas]) == 1)


def _without_contrast(data: Path, record: Record) -> nib.Nifti1Image:
    """Return the scan with the HU of blood without contrast medium, and with its own noise."""
    image = nib.load(data / record["path"])
    values = image.get_fdata(dtype=np.float32)
    blood = _mask(nib.load(data / record["seg_path"]), record, BLOOD)
    bright = binary_dilation(blood, iterations=EDGE) & (values > BLOOD_HU)
    inside = (binary_dilation(blood) & (values > TISSUE_HU)) | bright
    weight = gaussian_filter(inside.astype(np.float32), LOCAL)
    local = gaussian_filter(np.where(inside, values, 0), LOCAL) / np.maximum(weight, 1e-3)
    plain = BLOOD_HU + np.clip(values - local, -NOISE_HU, NOISE_HU)
    return nib.Nifti1Image(np.where(inside, plain, values).round().astype(np.int16), image.affine)


if __name__ == "__main__":
    typer.run(main)
