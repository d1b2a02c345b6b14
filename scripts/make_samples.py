"""Cut the sample scans of the plugin from the volumes of an `index.json`.

    python scripts/make_samples.py DATA_FOLDER

The script writes `src/napari_meduet/samples/*.nii.gz`, as int16 at the resolution of the data folder. Each
run writes the same bytes. It also writes the notice: the collection and the licence of each sample, and
whether the embedded model was trained on it.
"""

import argparse
import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

SAMPLES = Path(__file__).parents[1] / "src" / "napari_meduet" / "samples"
MAX_TOTAL_BYTES = 8_000_000


@dataclass(frozen=True)
class Sample:
    """A sample scan: its case in the index, and the range of slices."""

    case: str
    name: str
    first_slice: int
    last_slice: int
    is_labels: bool = False  # the labels of the case instead of its scan
    is_centred: bool = False  # moves the scan to the origin, for scans without common coordinates


SHIPPED = (
    Sample("lungfcp_0001", "ct_chest_soft_kernel", 0, 35, is_centred=True),
    Sample("cmbcrc_01068", "ct_chest_sharp_kernel", 34, 65, is_centred=True),
    Sample("ms19_T1", "mr_brain_t1", 38, 109),  # MNI z from -20 to 51 mm, as in the other patient
    Sample("ms19_T1", "mr_brain_t1_lesions", 38, 109, is_labels=True),
    Sample("ms07_T2", "mr_brain_t2", 39, 110),
)


def cut(image: nib.Nifti1Image, sample: Sample) -> nib.Nifti1Image:
    """Return the slices of the sample, with a new header."""
    piece = image.slicer[:, :, sample.first_slice : sample.last_slice + 1]
    voxels = np.asanyarray(piece.dataobj)
    if not np.array_equal(voxels, np.rint(voxels)) or np.abs(voxels).max() > np.iinfo(np.int16).max:
        raise SystemExit(f"The voxels of {sample.case} do not fit into int16. Choose another scan.")
    affine = piece.affine.copy()
    if sample.is_centred:
        affine[:3, 3] = -affine[:3, :3] @ (np.array(voxels.shape) - 1) / 2
    shipped = nib.Nifti1Image(voxels.astype(np.int16), affine)
    shipped.header.set_xyzt_units("mm")
    shipped.set_sform(affine, code=1)
    shipped.set_qform(affine, code=1)
    return shipped


def gzipped(image: nib.Nifti1Image) -> bytes:
    """Return the bytes of the file, without a name and a time, so that they are the same in each run."""
    return gzip.compress(image.to_bytes(), compresslevel=9, mtime=0)


def notice(shipped: list[tuple[Sample, dict]]) -> str:
    """Return the text of the notice: source, licence and use in training of each sample."""
    rows = []
    for sample, record in shipped:
        was_trained_on = "yes" if record["split"] == "train" else "no"
        about = (record["collection"], _licence(record), _description(sample, record), was_trained_on)
        rows.append(f"| `{sample.name}.nii.gz` | {' | '.join(about)} |")
    return NOTICE.format(rows="\n".join(rows))


def _licence(record: dict) -> str:
    return record["licence"].split(" (")[0]


def _description(sample: Sample, record: dict) -> str:
    details = [
        "lesions in" if sample.is_labels else "",
        record["sequence"],
        record["anatomy"],
        record["scanner"],
    ]
    return ", ".join(detail for detail in details if detail).replace("lesions in,", "lesions in")


NOTICE = """# Sample scans: where they come from

These files are parts of public, de-identified research scans, cut by `scripts/make_samples.py`. Their voxels
are those of the source volumes, which had been converted to int16 NIfTI and partly resampled in plane. The
origin of the CT scans was moved to the middle of each scan. Each file has the licence of its collection, not
that of this project. Users must not try to identify a person.

| file | collection and case | licence | description | used to train the embedded model |
|---|---|---|---|---|
{rows}

"no" means that the embedded model was trained on no scan of this patient. Use these scans to judge the
model.

Please cite
- CMB-CRC, Lung-Fused-CT-Pathology: The Cancer Imaging Archive, Clark et al. 2013,
  doi 10.1007/s10278-013-9622-7, and the collection's own page there.
- Ljubljana open MS data: Lesjak et al. 2018, "A novel public MR image dataset of multiple sclerosis patients
  with lesion segmentations based on multi-rater consensus", doi 10.1007/s12021-017-9348-7. Skull-stripped,
  bias-corrected and registered to MNI space by the distributor of the copy used (`cross_sectional/MNI`).
  Lesions: consensus of several raters.

Licence texts: CC BY 3.0 https://creativecommons.org/licenses/by/3.0/, CC BY 4.0
https://creativecommons.org/licenses/by/4.0/.
"""


def main() -> None:
    """Write the samples and the notice."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="Folder with an index.json and its volumes.")
    data: Path = parser.parse_args().data
    records = {record["case"]: record for record in json.loads((data / "index.json").read_text())}

    shipped, total = [], 0
    for sample in SHIPPED:
        record = records[sample.case]
        if record["licence_grade"] != "A":
            raise SystemExit(f"{sample.case} cannot be distributed: its licence is {record['licence']}.")
        source = record["seg_path"] if sample.is_labels else record["path"]
        content = gzipped(cut(nib.Nifti1Image.load(data / source), sample))
        (SAMPLES / f"{sample.name}.nii.gz").write_bytes(content)
        total += len(content)
        shipped.append((sample, record))
        print(f"{sample.name}: {len(content) / 1e6:.2f} MB")
    if total > MAX_TOTAL_BYTES:
        raise SystemExit(
            f"The samples have {total / 1e6:.1f} MB together; the limit is {MAX_TOTAL_BYTES / 1e6:.0f} MB."
        )
    (SAMPLES / "NOTICE.md").write_text(notice(shipped))


if __name__ == "__main__":
    main()
