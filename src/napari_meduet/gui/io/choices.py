"""Dialogs for files with several scans. Qt is imported only when a dialog is shown."""

from collections.abc import Sequence

from napari import current_viewer

from napari_meduet.volumes.files import SeriesInfo


def has_window() -> bool:
    """Whether napari has a window that can show a dialog."""
    return current_viewer() is not None


def ask_series(listed: Sequence[SeriesInfo]) -> list[SeriesInfo]:
    """Return the DICOM series that the user chooses; empty if the user cancels."""
    from napari_meduet.gui.io.series_dialog import SeriesDialog

    dialog = SeriesDialog(listed)
    return dialog.chosen() if dialog.exec() else []


def ask_volume(name: str, num_volumes: int) -> int | None:
    """Return the index of the volume that the user chooses from a 4-D file; None if the user cancels."""
    from qtpy.QtWidgets import QInputDialog

    index, is_chosen = QInputDialog.getInt(
        None,
        "4-D scan",
        f"{name} holds {num_volumes} volumes. Number of the volume to open (the first is 0):",
        0,
        0,
        num_volumes - 1,
    )
    return index if is_chosen else None
