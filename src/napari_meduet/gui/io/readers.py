"""Read files and DICOM folders into layers. `volumes` checks whether a file is a valid scan.

napari calls a reader with a path and gets a function that reads it, or None. If a file or a folder holds
several scans, a dialog asks the user which one to open. Without a window the file is refused, and the message
says how to choose.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path

from napari.utils.notifications import show_error, show_warning

from napari_meduet.errors import InputError, SeveralVolumes
from napari_meduet.gui.io.choices import ask_series, ask_volume, has_window
from napari_meduet.gui.io.labels import is_segmentation
from napari_meduet.gui.layers import LayerData, image_layer, labels_layer
from napari_meduet.volumes.dicom_frames import looks_like_dicom
from napari_meduet.volumes.files import list_series, read_volume
from napari_meduet.volumes.volume import Volume

Paths = str | Sequence[str]
Reader = Callable[[Paths], list[LayerData]]
NOTHING: list = [(None,)]  # means to napari: the path was read and holds no layer

_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".dcm", ".dicom", ".ima")


def file_reader(path: Paths) -> Reader | None:
    """Return a reader for NIfTI, NRRD and MetaImage files."""
    return read_files


def dicom_reader(path: Paths) -> Reader | None:
    """Return a reader for DICOM folders and files; None if the path holds no DICOM data."""
    return read_dicom if all(_is_dicom(Path(one)) for one in _listed(path)) else None


def _show_refusals(read: Reader) -> Reader:
    """Return a reader that shows its errors as notifications when there is a window.

    With an exception, napari would try its other readers, and these open damaged files without a warning.
    """

    @wraps(read)
    def reading(paths: Paths) -> list[LayerData]:
        try:
            return read(paths)
        except InputError as error:
            if not has_window():
                raise
            show_error(str(error))
            return NOTHING

    return reading


@_show_refusals
def read_files(paths: Paths) -> list[LayerData]:
    """Return the layers of files."""
    return [layer for path in _listed(paths) for layer in _read_file(Path(path))]


@_show_refusals
def read_dicom(paths: Paths) -> list[LayerData]:
    """Return a layer for each series that the user chooses in a folder, or one for a list of files."""
    if not isinstance(paths, str) and len(paths) > 1:
        return [as_layer(read_volume(paths), Path(paths[0]).parent.name)]
    path = Path(_listed(paths)[0])
    name = layer_name(path)
    if path.is_dir() and has_window() and len(listed := list_series(path)) > 1:
        return [
            as_layer(read_volume(path, series=str(series.number)), f"{name}, series {series.number}")
            for series in ask_series(listed)
        ] or NOTHING
    return [as_layer(read_volume(path), name)]


def layer_name(path: Path) -> str:
    """Return the name of a file or folder without the suffix of its format."""
    suffix = next((suffix for suffix in _SUFFIXES if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)] or path.name


def as_layer(volume: Volume, name: str) -> LayerData:
    """Return an Image layer of a scan or a Labels layer of a segmentation, and show the scan's warnings."""
    if is_segmentation(volume, name):
        return labels_layer(volume, name)
    if volume.synthetic and volume.synthetic.get("synthetic"):
        show_warning(f"{name} is synthetic: a model made it, not a scanner.")
    for warning in volume.warnings:
        show_warning(f"{name}: {warning}")
    return image_layer(volume, name)


def _read_file(path: Path) -> list[LayerData]:
    name = layer_name(path)
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
    """Whether a file starts like a DICOM file; for a folder, whether any file in it or below it does."""
    if path.is_dir():
        return any(_is_dicom(child) for child in path.rglob("*") if child.is_file())
    with path.open("rb") as file:
        return looks_like_dicom(file.read(140))
