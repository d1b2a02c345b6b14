"""Scans on the working grid, prepared once for trainings that read them many times.

One safetensors file for each scan holds HU as int16 for CT, or normalised intensity as float16 for MR, on the
1.5 mm grid, and the body mask. The simulated scanners change these values (`augmentation/scanners.py`); the
intensity profile for CT is applied after them (`augmentation/intensity.py`).
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track
from safetensors import safe_open
from safetensors.numpy import save_file

from meduet_training.data.cohort.scan import Scan, read_scan
from meduet_training.runtime.folders import make_folder
from napari_meduet.volumes.files import write_atomically
from napari_meduet.volumes.intensity import body_mask, fit_mr_profile
from napari_meduet.volumes.preparation import WorkingGrid


@dataclass(frozen=True, eq=False)
class WorkingScan:
    """A scan on the working grid.

    Attributes:
        values: (X, Y, Z) in RAS order; HU as int16 for CT, normalised intensity as float16 for MR.
        body: (X, Y, Z), True inside the patient.
        domain, patient, modality: as in the manifest.
        aligned: digest of patient and grid; registered scans of one session have the same digest.
        sha256: digest of the source file.
    """

    values: np.ndarray
    body: np.ndarray
    domain: str
    patient: str
    modality: str
    aligned: str
    sha256: str


def prepare_scan(scan: Scan) -> WorkingScan:
    """Read, orient and resample one scan, and return it on the working grid."""
    volume = read_scan(scan)
    native = volume.values()
    grid = WorkingGrid.for_volume(volume)
    values = grid.to_working(native)
    body = body_mask(values, scan.modality)
    if scan.modality == "CT":
        stored = np.round(values).astype(np.int16)
    else:
        stored = fit_mr_profile(native).encode(values).astype(np.float16)
    place = hashlib.sha256(
        f"{scan.patient} {grid.shape} {np.round(np.asarray(grid.affine), 2).tolist()}".encode()
    ).hexdigest()[:12]
    return WorkingScan(stored, body, scan.domain, scan.patient, scan.modality, place, volume.sha256)


def prepare_cohort(scans: list[Scan], folder: Path) -> list[Path]:
    """Prepare each scan that the folder does not hold yet, and return the paths in the order of the scans."""
    make_folder(folder)
    paths = []
    for scan in track(scans, description="Preparing scans"):
        path = folder / f"{_key(scan)}.safetensors"
        if not path.exists():
            save_prepared(prepare_scan(scan), path)
        paths.append(path)
    return paths


def _key(scan: Scan) -> str:
    """Return the name of a scan's file, from the digest in the manifest or from the file name in an index."""
    words = [scan.sha256 or scan.path.name, scan.path.stat().st_size, scan.domain]
    words += [part for part in (scan.series, scan.volume_index) if part is not None]
    return hashlib.sha256(" ".join(map(str, words)).encode()).hexdigest()[:16]


def save_prepared(scan: WorkingScan, path: Path) -> None:
    """Write one prepared scan, completely or not at all."""
    words = ("domain", "patient", "modality", "aligned", "sha256")
    with write_atomically(path, overwrite=True) as temporary:
        save_file(
            {
                "values": np.ascontiguousarray(scan.values),
                "body": np.packbits(scan.body),
            },  # safetensors ignores strides
            temporary,
            metadata={"scan": json.dumps({word: getattr(scan, word) for word in words})},
        )


def load_prepared(path: Path) -> WorkingScan:
    """Return the prepared scan in a file."""
    with safe_open(path, framework="numpy") as file:
        words = json.loads(file.metadata()["scan"])
        values = file.get_tensor("values")
        body = np.unpackbits(file.get_tensor("body"), count=values.size).reshape(values.shape).astype(bool)
    return WorkingScan(values, body, **words)
