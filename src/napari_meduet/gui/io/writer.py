"""Layers as NIfTI files: same grid, unit and type as the scan came with, and the mark of a synthetic one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_meduet import __version__
from napari_meduet.gui.layers import KEY, SEGMENTATION, known_names, volume_of
from napari_meduet.gui.segmentation.label_places import label_places
from napari_meduet.gui.synthesis.mask_classes import names_in
from napari_meduet.pipelines.segmentation.label_statistics import voxel_volume_ml
from napari_meduet.volumes.files import write_volume
from napari_meduet.volumes.volume import Volume


def write_nifti(path: str, data: Any, state: Mapping[str, Any]) -> list[str]:
    """Write one Image or Labels layer, and return the path as napari wants it.

    Napari has asked before an existing file is replaced.
    """
    scan = volume_of(data, state)
    record = provenance_of(scan)
    if record.get("kind") == SEGMENTATION:
        record = {**record, **_as_painted(scan, data, state)}
    write_volume(Path(path), scan, provenance=record, overwrite=True)
    return [path]


def _as_painted(scan: Volume, data: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """What a segmentation's provenance says of its labels, as they are now."""
    made = state["metadata"][KEY]["scan"]
    names = known_names(made.synthetic) | names_in(state["features"])
    found, per_voxel = label_places(np.asarray(data)), voxel_volume_ml(scan.affine)
    volumes = {label: found[label].num_voxels * per_voxel if label in found else 0.0 for label in names}
    volumes |= {label: place.num_voxels * per_voxel for label, place in found.items()}
    volumes.pop(0, None)
    return {
        "labels": {str(label): names.get(label, f"label {label}") for label in sorted(volumes)},
        "volumes_ml": {str(label): volumes[label] for label in sorted(volumes)},
        "edited": scan.sha256 != made.sha256,
    }


def provenance_of(scan: Volume) -> Mapping[str, Any]:
    """What the file will say of where its voxels come from: a model's recipe, or that none was involved."""
    return scan.synthetic or {
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "napari-meduet", "Version": __version__}],
        "synthetic": False,
        "kind": "copy",
        "modality": scan.modality,
        "Sources": [{"role": "scan", "sha256": scan.sha256}],
    }
