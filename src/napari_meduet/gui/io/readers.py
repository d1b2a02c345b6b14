"""Files and DICOM folders as layers. What makes a file a scan, and a good one, is judged in `volumes`.

Napari asks a reader with a path and gets a function that reads it, or None. Where a file or a folder leaves
a choice, the person at the window is asked; without a window it is refused with the sentence that says how
to choose.
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
NOTHING: list = [(None,)]  # tells napari that the path was read and holds no layer

_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".dcm", ".dicom", ".ima")


def file_reader(path: Paths) -> Reader | None:
    """A reader for NIfTI, NRRD and MetaImage files."""
    return read_files


def dicom_reader(path: Paths) -> Reader | None:
    """A reader for DICOM folders and files; None where a path only looks like one."""
    return read_dicom if all(_is_dicom(Path(one)) for one in _listed(path)) else None


def _told_in_the_window(read: Reader) -> Reader:
    """A reader whose refusals are sentences in the window.

    Napari would offer the file to its other readers instead, which open what is damaged without a word.
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


@_told_in_the_window
def read_files(paths: Paths) -> list[LayerData]:
    """A layer for each file."""
    return [layer for path in _listed(paths) for layer in _read_file(Path(path))]


@_told_in_the_window
def read_dicom(paths: Paths) -> list[LayerData]:
    """A layer for each series chosen of a folder, or for the one series that several files make up."""
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
    """The name of a file or folder without what only says its format."""
    suffix = next((suffix for suffix in _SUFFIXES if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)] or path.name


def as_layer(volume: Volume, name: str) -> LayerData:
    """A scan as an Image layer, a segmentation as a Labels layer; what is doubtful about it is said."""
    if is_segmentation(volume, name):
        return labels_layer(volume, name)
    if volume.synthetic and volume.synthetic.get("synthetic"):
        show_warning(f"{name} is synthetic: a model made it, no scanner did.")
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
    """Whether a file, or any file in a folder or below it, begins as DICOM does."""
    if path.is_dir():
        return any(_is_dicom(child) for child in path.rglob("*") if child.is_file())
    with path.open("rb") as file:
        return looks_like_dicom(file.read(140))
