"""Check that no view is mirrored, with a phantom of a red, a green and a blue cube in the real canvas."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Labels
from napari.utils import DirectLabelColormap

from napari_meduet.gui.io.writer import write_nifti
from napari_meduet.gui.layers import labels_layer
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.volume import Volume

COLOURS = {1: (0.5, 0.5, 0.5), 2: (1, 0, 0), 3: (0, 1, 0), 4: (0, 0, 1)}
RAS = np.eye(3)
ALL_ORDERS = [
    "".join(letters)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*axes)
]


def phantom(order: str) -> Volume:
    """Return an opaque cube with red towards R, green towards A and blue towards S, in a voxel order."""
    voxels = np.zeros((33, 33, 33), np.uint8)
    voxels[10:23, 10:23, 10:23] = 1
    voxels[25:32, 13:20, 13:20] = 2
    voxels[13:20, 25:32, 13:20] = 3
    voxels[13:20, 13:20, 25:32] = 4
    image = nib.Nifti1Image(voxels, nib.affines.from_matvec(RAS * 2, [-33, -33, -33]))
    to_order = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(order)
    )
    stored = image.as_reoriented(to_order)
    return Volume(
        voxels=np.asarray(stored.dataobj),
        affine=stored.affine,
        modality="MR",
        unit="arbitrary",
        sha256="0" * 64,
    )


def in_layer_world(direction) -> np.ndarray:
    """Return a RAS direction in the world coordinates of the layers."""
    return -np.asarray(direction, dtype=float)[::-1]


def blobs(picture: np.ndarray) -> dict[str, np.ndarray]:
    """Return the centre of each visible colour, as (right, up) on the screen."""
    red, green, blue = (picture[..., channel].astype(int) for channel in range(3))
    masks = {
        "R": red - np.maximum(green, blue) > 60,
        "A": green - np.maximum(red, blue) > 60,
        "S": blue - np.maximum(red, green) > 60,
    }
    centres = {}
    for name, mask in masks.items():
        rows, columns = np.nonzero(mask)
        if rows.size > 30:
            centres[name] = np.array([columns.mean(), -rows.mean()])
    return centres


def coloured_layer(order: str) -> Labels:
    data, state, _ = labels_layer(phantom(order), "phantom")
    colours = {None: (0, 0, 0, 0), 0: (0, 0, 0, 0)} | {label: (*c, 1) for label, c in COLOURS.items()}
    return Labels(data, **state, colormap=DirectLabelColormap(color_dict=colours), opacity=1)


@pytest.fixture
def viewer(make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    viewer.add_layer(coloured_layer("LAS"))
    return viewer


def test_every_voxel_order_is_drawn_alike_and_saved_as_it_was_stored(make_napari_viewer, tmp_path):
    viewer = make_napari_viewer(show=True)
    expected = {}
    for number, order in enumerate(["RAS", *ALL_ORDERS]):
        if number <= 1:  # the controls of the first layer change the size of the canvas
            expected.clear()
        viewer.dims.ndisplay = 2
        layer = viewer.add_layer(coloured_layer(order))
        viewer.reset_view()
        for axis in range(3):
            viewer.dims.order = (axis, *(other for other in range(3) if other != axis))
            viewer.dims.set_point(axis, 0)
            viewer.reset_view()
            seen = blobs(viewer.screenshot(canvas_only=True, flash=False))
            for name, centre in expected.setdefault(axis, seen).items():
                assert np.allclose(seen[name], centre, atol=2), (order, axis, name)
            assert len(seen) == 2, (order, axis)
        viewer.dims.order = (0, 1, 2)
        viewer.dims.ndisplay = 3
        viewer.reset_view()
        seen = blobs(viewer.screenshot(canvas_only=True, flash=False))
        assert seen.keys() == expected.setdefault("3-D", seen).keys(), order

        stored = phantom(order)
        (saved,) = write_nifti(str(tmp_path / f"{order}.nii.gz"), *layer.as_layer_data_tuple()[:2])
        back = read_volume(saved, modality="MR")
        assert np.array_equal(back.voxels, stored.voxels), order
        assert np.array_equal(back.affine, stored.affine), order
        viewer.layers.clear()


def test_slices_are_radiological_and_space_is_not_mirrored(viewer):
    def look():
        return blobs(viewer.screenshot(canvas_only=True, flash=False))

    # axial, the default: the patient's right is on the left, anterior is up
    viewer.dims.set_point(0, 0)
    seen = look()
    assert seen["R"][0] < seen["A"][0]
    assert seen["A"][1] > seen["R"][1]
    assert "S" not in seen

    # coronal: the patient's right is on the left, superior is up
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_point(1, 0)
    viewer.reset_view()
    seen = look()
    assert seen["R"][0] < seen["S"][0]
    assert seen["S"][1] > seen["R"][1]
    assert "A" not in seen

    # in 3-D, from a point where all three are visible: R, A, S run counter-clockwise (right-handed)
    viewer.dims.order = (0, 1, 2)
    viewer.dims.ndisplay = 3
    viewer.reset_view()
    camera = viewer.scene.camera
    camera.set_view_direction(
        view_direction=in_layer_world([-1, -1, -1]), up_direction=in_layer_world([0, 0, 1])
    )
    seen = look()
    to_a, to_s = seen["A"] - seen["R"], seen["S"] - seen["R"]
    assert to_a[0] * to_s[1] - to_a[1] * to_s[0] > 0

    # depth order: from the right, red is in front of the opaque cube; from the left, red is behind it
    for side, expected in ((1, {"R", "A", "S"}), (-1, {"A", "S"})):
        camera.set_view_direction(
            view_direction=in_layer_world([-side, 0, 0]), up_direction=in_layer_world([0, 0, 1])
        )
        assert set(look()) == expected
