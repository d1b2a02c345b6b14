"""Files and DICOM folders as layers. What makes a file a scan, and a good one, is judged in `volumes`.

Napari asks a reader with a path and gets a function that reads it, or None. Where a file or a folder leaves
a choice, the person at the window is asked; without a window it is refused with the sentence that says how
to choose.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from napari.utils.notifications import show_warning

from napari_meduet.errors import SeveralVolumes
from napari_meduet.gui.choices import ask_series, ask_volume, has_window
from napari_meduet.gui.labels import is_segmentation
from napari_meduet.gui.layers import LayerData, image_layer, labels_layer
from napari_meduet.volumes.files import list_series, read_volume
from napari_meduet.volumes.volume import Volume

Paths = str | Sequence[str]
Reader = Callable[[Paths], list[LayerData]]
NOTHING: list = [(None,)]  # tells napari that the path was read and holds no layer

_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".dcm", ".dicom", ".ima")
_DICOM_MARK = b"DICM"  # behind a preamble of 128 bytes


def file_reader(paths: Paths) -> Reader | None:
    """A reader for NIfTI, NRRD and MetaImage files."""
    return read_files


def dicom_reader(paths: Paths) -> Reader | None:
    """A reader for DICOM folders and files; None where the path only looks like one."""
    return read_files if all(_is_dicom(Path(path)) for path in _listed(paths)) else None


def read_files(paths: Paths) -> list[LayerData]:
    """A layer for each path."""
    return [layer for path in _listed(paths) for layer in _read(Path(path))]


def layer_name(path: Path) -> str:
    """The name of a file or folder without what only says its format."""
    suffix = next((suffix for suffix in _SUFFIXES if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)] or path.name


def as_layer(volume: Volume, name: str) -> LayerData:
    """A scan as an Image layer, a segmentation as a Labels layer; what is doubtful about it is said."""
    if is_segmentation(volume, name):
        return labels_layer(volume, name)
    for warning in volume.warnings:
        show_warning(f"{name}: {warning}")
    return image_layer(volume, name)


def _read(path: Path) -> list[LayerData]:
    name = layer_name(path)
    if path.is_dir() and has_window() and len(listed := list_series(path)) > 1:
        return [
            as_layer(read_volume(path, series=str(series.number)), f"{name}, series {series.number}")
            for series in ask_series(listed)
        ] or NOTHING
    try:
        return [as_layer(read_volume(path), name)]
    except SeveralVolumes as several:
        if not has_window():
            raise
        index = ask_volume(name, several.num_volumes)
        if index is None:
            return NOTHING
        return [as_layer(read_volume(path, volume_index=index), f"{name}, volume {index}")]


def _listed(paths: Paths) -> list[str]:
    return [paths] if isinstance(paths, str) else list(paths)


def _is_dicom(path: Path) -> bool:
    if path.is_dir():
        return any(_is_dicom(child) for child in path.iterdir() if child.is_file())
    with path.open("rb") as file:
        return file.read(132)[128:] == _DICOM_MARK
