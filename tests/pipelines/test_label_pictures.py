"""Pictures, clean-up and tables of labels, on labels small enough to check by eye."""

import csv
import json

import numpy as np
import pytest

from napari_meduet.pipelines.segmentation.label_cleaning import keep_largest_parts
from napari_meduet.pipelines.segmentation.label_colours import label_colour
from napari_meduet.pipelines.segmentation.label_overlay import fullest_places, overlay_picture, plane_picture
from napari_meduet.pipelines.segmentation.label_statistics import label_volumes, voxel_volume_ml
from napari_meduet.pipelines.segmentation.volumes_table import write_volumes_table
from napari_meduet.volumes.volume import Volume


def test_the_smaller_parts_of_each_label_go():
    """A block of 8 stays, a voxel two steps away goes; voxels that touch at a corner are one part."""
    labels = np.zeros((12, 12, 12), np.uint8, order="F")
    labels[1:3, 1:3, 1:3] = 2
    labels[3, 3, 3] = 2  # touches the block's corner
    labels[8, 8, 8] = 2
    labels[10:12, 0, 0] = 5
    expected = labels.copy()
    expected[8, 8, 8] = 0
    keep_largest_parts(labels)
    np.testing.assert_array_equal(labels, expected)


def test_a_label_around_another_keeps_clear_of_it():
    """The box around the larger label holds the smaller one, which is left alone."""
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[0:9, 0, 0:9] = 1
    labels[0, 0:9, 0] = 1
    labels[4, 4, 4] = 3
    labels[6, 6, 6] = 1
    keep_largest_parts(labels)
    assert labels[4, 4, 4] == 3
    assert labels[6, 6, 6] == 0
    assert (labels == 1).sum() == 81 + 8


def test_a_litre_is_a_thousand_voxels_of_a_centimetre():
    labels = np.zeros((10, 10, 12), np.int32)
    labels[..., :10] = 4
    found = label_volumes(labels, np.diag([-10.0, 10, 10, 1]), {4: "a", 9: "b"})
    assert (found[4].num_voxels, found[4].volume_ml) == (1000, pytest.approx(1000))
    assert (found[9].num_voxels, found[9].volume_ml) == (0, 0)


def test_labels_without_a_name_are_not_counted():
    labels = np.array([0, 1, 1, 7, 200], np.uint8).reshape(5, 1, 1)
    assert label_volumes(labels, np.eye(4), {1: "a"})[1].num_voxels == 2


def test_a_tilted_voxel_has_the_volume_of_a_parallelepiped():
    """Sheared by a whole voxel it is longer along z, and as large."""
    tilted = np.array([[1.0, 0, 0, 0], [0, 1, 2, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    assert voxel_volume_ml(tilted) == pytest.approx(0.002)


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_a_picture_shows_the_patients_right_on_the_left_whatever_the_voxel_order(flips):
    """A label on the right, in front and low down: left in every plane, low but where the front is up."""
    affine = np.diag([*np.multiply((1.0, 1.0, 1.6), flips), 1])
    voxels = np.full((40, 40, 40), -1000, np.int16)
    labels = np.zeros(voxels.shape, np.uint8)
    right, front, low = (
        slice(30, 36) if flip == side else slice(4, 10) for flip, side in zip(flips, (1, 1, -1), strict=True)
    )
    labels[right, front, low] = 1
    volume = Volume(voxels=voxels, affine=affine, modality="CT", unit="HU", sha256="")
    places = fullest_places(volume, labels)
    for axis, (is_left, is_upper) in {2: (True, True), 1: (True, False), 0: (True, False)}.items():
        picture = plane_picture(volume, labels, axis, places[axis])
        rows, columns = np.nonzero(np.asarray(picture).max(axis=-1) > 50)  # air is black
        assert ((columns < picture.width / 2) == is_left).all()
        assert ((rows < picture.height / 2) == is_upper).all()
        assert rows.size
        height_mm = 40 * 1.6 if axis != 2 else 40.0
        assert picture.size == (50, round(height_mm / 0.8))


def test_a_sheet_has_its_legend_in_the_labels_colours():
    volume = Volume(
        voxels=np.full((40, 40, 30), -1000, np.int16), affine=np.eye(4), modality="CT", unit="HU", sha256=""
    )
    labels = np.zeros((40, 40, 30), np.uint8)
    labels[5:20, 5:20, 5:20] = 2
    names = {2: "spleen", 9: "left_kidney"}
    sheet = np.asarray(overlay_picture(volume, labels, names, label_volumes(labels, np.eye(4), names)))
    for label in names:
        assert (sheet == label_colour(label)).all(axis=-1).sum() >= 14 * 14


def test_colours_of_neighbouring_labels_differ():
    colours = [label_colour(label) for label in range(1, 22)]
    assert len(set(colours)) == len(colours)


def test_the_table_has_a_row_for_each_segmentation_and_nothing_else(tmp_path):
    def sidecar(name: str, record: object) -> None:
        (tmp_path / name).write_text(json.dumps(record))

    sidecar(
        "a_segmentation.json", {"kind": "segmentation", "labels": {"1": "lung"}, "volumes_ml": {"1": 2.5}}
    )
    sidecar(
        "b_segmentation.json", {"kind": "segmentation", "labels": {"4": "heart"}, "volumes_ml": {"4": 0.0}}
    )
    sidecar("c.json", {"kind": "translated"})
    sidecar("d.json", ["no record"])
    (tmp_path / "e.json").write_text("{")
    with write_volumes_table(tmp_path).open() as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"segmentation": "a_segmentation", "lung": "2.500", "heart": ""},
        {"segmentation": "b_segmentation", "lung": "", "heart": "0.000"},
    ]
