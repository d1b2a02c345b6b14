"""Layers as NIfTI files: same grid, unit and type as the scan came with, and the mark of a synthetic one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_meduet import __version__
from napari_meduet.gui.layers import volume_of
from napari_meduet.volumes.files import write_volume
from napari_meduet.volumes.volume import Volume


def write_nifti(path: str, data: Any, state: Mapping[str, Any]) -> list[str]:
    """Write one Image or Labels layer, and return the path as napari wants it.

    Napari has asked before an existing file is replaced.
    """
    scan = volume_of(data, state)
    write_volume(Path(path), scan, provenance=provenance_of(scan), overwrite=True)
    return [path]


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
