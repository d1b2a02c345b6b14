"""Questions that opening a file may raise. Qt is imported only when one is really asked."""

from collections.abc import Sequence

from napari import current_viewer

from napari_meduet.volumes.files import SeriesInfo


def has_window() -> bool:
    """Whether there is a person at a window to ask."""
    return current_viewer() is not None


def ask_series(listed: Sequence[SeriesInfo]) -> list[SeriesInfo]:
    """Which of several DICOM series to open; none if the person changes their mind."""
    from napari_meduet.gui.io.series_dialog import SeriesDialog

    dialog = SeriesDialog(listed)
    return dialog.chosen() if dialog.exec() else []


def ask_volume(name: str, num_volumes: int) -> int | None:
    """Which volume of a 4-D file to open, from 0; None if the person changes their mind."""
    from qtpy.QtWidgets import QInputDialog

    index, is_chosen = QInputDialog.getInt(
        None, "4-D scan", f"{name} holds {num_volumes} volumes. Which one, from 0?", 0, 0, num_volumes - 1
    )
    return index if is_chosen else None
