"""Scans brought to the working grid once, for trainings that visit them thousands of times.

One safetensors file a scan: HU as int16 for CT, profile units as float16 for MR, on the 1.5 mm grid, and the
body mask. The simulated scanners work on these values; a tokenizer's profile is applied after them.
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
        values: (X, Y, Z) RAS; HU as int16 for CT, profile units as float16 for MR.
        body: (X, Y, Z) bool.
        aligned: scans with the same word show one anatomy on one grid (sequences of one session).
        sha256: of the file the scan came from.
    """

    values: np.ndarray
    body: np.ndarray
    domain: str
    patient: str
    modality: str
    aligned: str
    sha256: str


def prepare_scan(scan: Scan) -> WorkingScan:
    """Read, orient and resample one scan."""
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
    """Prepare each scan into a folder; what is there already is kept."""
    make_folder(folder)
    paths = []
    for scan in track(scans, description="Preparing scans"):
        path = folder / f"{_key(scan)}.safetensors"
        if not path.exists():
            save_prepared(prepare_scan(scan), path)
        paths.append(path)
    return paths


def _key(scan: Scan) -> str:
    """Tells one scan from another. A manifest knows the file's digest; an index alone, its name."""
    words = [scan.sha256 or scan.path.name, scan.path.stat().st_size, scan.domain]
    words += [part for part in (scan.series, scan.volume_index) if part is not None]
    return hashlib.sha256(" ".join(map(str, words)).encode()).hexdigest()[:16]


def save_prepared(scan: WorkingScan, path: Path) -> None:
    """Write one prepared scan, whole or not at all."""
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
    """Read one prepared scan back."""
    with safe_open(path, framework="numpy") as file:
        words = json.loads(file.metadata()["scan"])
        values = file.get_tensor("values")
        body = np.unpackbits(file.get_tensor("body"), count=values.size).reshape(values.shape).astype(bool)
    return WorkingScan(values, body, **words)
