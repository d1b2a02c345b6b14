"""Write layers as NIfTI files with the scan's grid, unit and data type, and with their provenance."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_meduet import __version__
from napari_meduet.gui.common.label_counts import count_labels
from napari_meduet.gui.common.label_features import names_in
from napari_meduet.gui.layers import KEY, SEGMENTATION, known_names, volume_of
from napari_meduet.pipelines.segmentation.label_statistics import voxel_volume_ml
from napari_meduet.volumes.files import write_volume
from napari_meduet.volumes.volume import Volume


def write_nifti(path: str, data: Any, state: Mapping[str, Any]) -> list[str]:
    """Write one Image or Labels layer and return its path in a list, as napari requires.

    napari asks the user before it replaces an existing file.
    """
    scan = volume_of(data, state)
    record = provenance_of(scan)
    if record.get("kind") == SEGMENTATION:
        record = {**record, **_current_labels(scan, data, state)}
    write_volume(Path(path), scan, provenance=record, overwrite=True)
    return [path]


def _current_labels(scan: Volume, data: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provenance fields for the current, possibly edited labels of a segmentation."""
    original = state["metadata"][KEY]["scan"]
    names = known_names(original.synthetic) | names_in(state["features"])
    counts, per_voxel = count_labels(np.asarray(data)), voxel_volume_ml(scan.affine)
    volumes = dict.fromkeys(names, 0.0)
    volumes |= {label: count.num_voxels * per_voxel for label, count in counts.items()}
    volumes.pop(0, None)
    return {
        "labels": {str(label): names.get(label, f"label {label}") for label in sorted(volumes)},
        "volumes_ml": {str(label): volumes[label] for label in sorted(volumes)},
        "edited": scan.sha256 != original.sha256,
    }


def provenance_of(scan: Volume) -> Mapping[str, Any]:
    """Return the provenance of a scan: the record of the model that made it, or of a plain copy."""
    return scan.synthetic or {
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "napari-meduet", "Version": __version__}],
        "synthetic": False,
        "kind": "copy",
        "modality": scan.modality,
        "Sources": [{"role": "scan", "sha256": scan.sha256}],
    }
