import pytest
from napari._app_model import get_app_model
from qtpy.QtWidgets import QFileDialog

from napari_meduet.gui.io import readers
from napari_meduet.volumes.display_windows import CT_WINDOWS

EXPECTED = {
    "napari/file/io_utilities": {"Open DICOM series… (MeDUET)"},
    "napari/layers/segment": {"MeDUET segmentation (MeDUET)"},
    "napari/layers/transform": {"MeDUET style swap (MeDUET)", "MeDUET synthesis (MeDUET)"},
    "napari/layers/visualize": {"Intensity window"},
    "napari/plugins": {"MeDUET"},
    "napari/plugins/napari-meduet": {
        "MeDUET segmentation (MeDUET)",
        "MeDUET style swap (MeDUET)",
        "MeDUET synthesis (MeDUET)",
    },
}


def titles(menu: str) -> list[str]:
    entries = [entry for group in get_app_model().menus.iter_menu_groups(menu) for entry in group]
    return [entry.title if hasattr(entry, "title") else entry.command.title for entry in entries]


@pytest.fixture
def viewer(make_napari_viewer):
    viewer = make_napari_viewer(show=False)
    viewer.open_sample("napari-meduet", "ct")
    return viewer


def test_every_menu_entry_is_there_and_works(viewer, tmp_path, monkeypatch):
    for menu, expected in EXPECTED.items():
        assert expected <= set(titles(menu))

    execute = get_app_model().commands.execute_command
    first, second = viewer.layers
    viewer.layers.selection = {first}
    for window in ("lung", "bone", "brain", "soft tissue"):
        execute(f"napari-meduet.show_{window.replace(' ', '_')}").result()
        assert first.contrast_limits == list(CT_WINDOWS[window])
    execute("napari-meduet.show_percentiles").result()
    low, high = first.contrast_limits
    assert -1024 <= low < -500
    assert 200 < high < 3071
    assert second.contrast_limits == list(CT_WINDOWS["soft tissue"])  # it was not selected

    asked = []
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *args: str(tmp_path))
    monkeypatch.setattr(type(viewer), "open", lambda self, path, plugin: asked.append((path, plugin)))
    execute("napari-meduet.open_dicom").result()
    assert asked == [(str(tmp_path), "napari-meduet")]


def test_a_damaged_file_is_a_sentence_in_the_window(viewer, tmp_path):
    path = tmp_path / "cut.nii.gz"
    path.write_bytes(b"\x1f\x8b" + bytes(40))
    assert readers.has_window()
    assert readers.read_files(str(path)) == readers.NOTHING
