from pathlib import Path

import nibabel as nib
import npe2
import numpy as np
import pytest
import SimpleITK as sitk
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.utils.notifications import notification_manager

from napari_meduet.errors import InputError, SeveralVolumes
from napari_meduet.gui.io import choices, readers
from napari_meduet.gui.layers import scan_of

AFFINE = nib.affines.from_matvec(np.diag([-0.8, -0.8, 2.5]), [100, 120, -40])  # stored LPS


def ct_values() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 400, (10, 12, 6)).astype(np.int16)


def write(path: Path, voxels: np.ndarray) -> str:
    nib.save(nib.Nifti1Image(voxels, AFFINE), path)
    return str(path)


def opened(*paths: str):
    viewer = ViewerModel()
    for path in paths:
        viewer.open(path, plugin="napari-meduet")
    return viewer.layers


def readers_of_ours(path: str) -> set[str]:
    """Return the commands of this plugin that napari offers for a path."""
    found = npe2.PluginManager.instance().iter_compatible_readers([path])
    return {reader.command for reader in found if reader.plugin_name == "napari-meduet"}


@pytest.mark.parametrize("name", ["chest.nii", "chest.nii.gz", "chest.nrrd", "chest.mha"])
def test_every_format_of_one_scan_is_one_layer(tmp_path, name):
    nifti = write(tmp_path / "reference.nii.gz", ct_values())
    path = str(tmp_path / name)
    if ".nii" in name:
        write(Path(path), ct_values())
    else:
        sitk.WriteImage(sitk.ReadImage(nifti), path)
    (reference,) = opened(nifti)
    assert readers_of_ours(path) == {"napari-meduet.read_file"}
    (layer,) = opened(path)
    assert layer.name == "chest"
    assert isinstance(layer, Image)
    assert np.array_equal(layer.data, reference.data)
    assert np.allclose(layer.affine.affine_matrix, reference.affine.affine_matrix, atol=1e-3)
    assert np.allclose(scan_of(layer).affine, AFFINE, atol=1e-3)


def test_segmentations_become_labels_and_images_do_not(tmp_path):
    z, y, x = np.indices((24, 24, 24))
    organs = ((x - 12) ** 2 + (y - 12) ** 2 + (z - 12) ** 2 < 64).astype(np.uint8)
    organs[4:8, 4:8, 4:8] = 7
    few_grey_values = np.random.default_rng(0).integers(0, 200, (24, 24, 24)).astype(np.uint8)
    smooth = (100 + 50 * np.sin(x / 3) + 40 * np.cos(y / 4)).astype(np.uint8)
    layers = opened(
        write(tmp_path / "organs.nii.gz", organs),
        write(tmp_path / "wide_labels.nii.gz", organs.astype(np.int32)),
        write(tmp_path / "noise.nii.gz", few_grey_values),
        write(tmp_path / "smooth.nii.gz", smooth),
        write(tmp_path / "chest.nii.gz", ct_values()),
    )
    assert [type(layer) for layer in layers] == [Labels, Labels, Image, Image, Image]
    assert layers["organs"].data.flags.writeable


def test_a_dicom_folder_and_its_files_without_extension(shared_data):
    folder = shared_data / "dicom" / "example_ct"
    (layer,) = opened(str(folder))
    assert layer.name == "example_ct"
    assert layer.data.shape == (20, 512, 512)
    assert scan_of(layer).modality == "CT"
    first = sorted(folder.iterdir())[0]
    assert readers_of_ours(str(first)) == readers_of_ours(str(folder)) == {"napari-meduet.read_dicom"}
    with pytest.raises(InputError, match="single slice"):
        opened(str(first))
    (stack,) = readers.dicom_reader([str(path) for path in sorted(folder.iterdir())])(
        [str(path) for path in sorted(folder.iterdir())]
    )
    assert np.array_equal(stack[0], layer.data)


def test_what_is_no_dicom_is_left_to_other_readers(tmp_path):
    (tmp_path / "image001").write_bytes(b"\x89PNG" + bytes(200))
    assert readers.dicom_reader(str(tmp_path)) is None
    assert readers.dicom_reader(str(tmp_path / "image001")) is None


def test_one_volume_of_a_4d_file_is_asked_for(tmp_path, monkeypatch):
    path = write(tmp_path / "perfusion.nii.gz", np.stack([ct_values() + k for k in range(5)], axis=-1))
    with pytest.raises(SeveralVolumes, match="5 volumes"):
        opened(path)
    monkeypatch.setattr(readers, "has_window", lambda: True)
    monkeypatch.setattr(readers, "ask_volume", lambda name, num_volumes: num_volumes - 1)
    (layer,) = opened(path)
    assert layer.name == "perfusion, volume 4"
    assert np.array_equal(scan_of(layer).voxels, ct_values() + 4)
    monkeypatch.setattr(readers, "ask_volume", lambda name, num_volumes: None)
    assert len(opened(path)) == 0


def test_a_bad_file_is_refused_with_its_name(tmp_path, monkeypatch):
    path = tmp_path / "cut.nii.gz"
    write(path, ct_values())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"cut\.nii\.gz"):
        opened(str(path))
    monkeypatch.setattr(readers, "has_window", lambda: True)
    assert len(opened(str(path))) == 0  # napari does not try another reader on the damaged file
    assert "cut.nii.gz" in notification_manager.records[-1].message


def test_series_are_chosen_from_a_table(qtbot, monkeypatch):
    from napari_meduet.gui.io.series_dialog import SeriesDialog
    from napari_meduet.volumes.files import SeriesInfo

    def series(number, num_slices, *problems):
        return SeriesInfo(
            number=number,
            modality="CT",
            description="Body",
            phase=f"EchoTime {number}",
            num_slices=num_slices,
            shape=(512, 512, num_slices),
            spacing_mm=(0.8, 0.8, 2.0),
            problems=problems,
        )

    listed = [series(1, 2), series(2, 80), series(3, 90, "A slice is missing.")]
    dialog = SeriesDialog(listed)
    qtbot.addWidget(dialog)
    assert dialog.chosen() == [listed[1]]  # the largest series without a problem
    row = [dialog.table.item(2, column).text() for column in range(dialog.table.columnCount())]
    assert row == [
        "3",
        "CT",
        "Body EchoTime 3",
        "90",
        "512 × 512 × 90",
        "0.80 × 0.80 × 2.00",
        "A slice is missing.",
    ]
    dialog.table.selectRow(0)
    monkeypatch.setattr(SeriesDialog, "exec", lambda self: self.table.selectRow(2) or 1)
    assert choices.ask_series(listed) == [listed[2]]
    monkeypatch.setattr(SeriesDialog, "exec", lambda self: 0)
    assert choices.ask_series(listed) == []
