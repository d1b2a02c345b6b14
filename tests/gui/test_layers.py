from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Image, Layer

from napari_meduet.errors import InputError
from napari_meduet.gui.io.writer import write_nifti
from napari_meduet.gui.layers import (
    empty_labels,
    image_layer,
    labels_layer,
    labels_on,
    layer_matrix,
    ras_affine,
    scan_of,
    share_grid,
)
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.volume import Volume

ORDERS = ("RAS", "LPS", "LAS", "PSR", "IRP", "SPR", "ASL", "LIA")


def a_scan(affine=None, dtype=np.int16, **changes) -> Volume:
    voxels = np.arange(-1000, -1000 + 4 * 5 * 6).reshape(4, 5, 6).astype(dtype)
    affine = np.diag([1.0, 2.0, 3.0, 1.0]) if affine is None else affine
    fields = {"voxels": voxels, "affine": affine, "modality": "CT", "unit": "HU", "sha256": "0" * 64}
    return Volume(**(fields | changes))


def layer_of(scan: Volume, name="CT") -> Layer:
    return Layer.create(*image_layer(scan, name))


def oblique(spacing=(0.7, 0.8, 3.0), angles=(0.3, -0.2, 0.1)) -> np.ndarray:
    return nib.affines.from_matvec(
        nib.eulerangles.euler2mat(*angles) @ np.diag(spacing), [-123.4, 56.7, 89.1]
    )


def in_order(order: str) -> np.ndarray:
    to_order = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(order)
    )
    return oblique((1.0, 2.0, 3.0), (0, 0, 0)) @ nib.orientations.inv_ornt_aff(to_order, (4, 5, 6))


@pytest.mark.parametrize("affine", [oblique(), *map(in_order, ORDERS)], ids=["oblique", *ORDERS])
def test_a_layer_goes_back_to_the_very_scan_it_came_from(affine):
    scan = a_scan(affine)
    back = scan_of(layer_of(scan))
    assert np.array_equal(back.affine, scan.affine)
    assert np.array_equal(back.voxels, scan.voxels)
    assert back.voxels.dtype == scan.voxels.dtype
    assert back.sha256 == scan.sha256


@settings(deadline=None)
@given(
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    spacing=st.tuples(*[st.floats(0.1, 10)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
)
def test_matrices_invert_each_other_exactly(angles, spacing, origin):
    affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(*angles) @ np.diag(spacing), origin)
    assert np.array_equal(ras_affine(layer_matrix(affine)), affine)


def test_the_world_counts_towards_inferior_posterior_and_left():
    affine = nib.affines.from_matvec(
        np.diag([2.0, 3.0, 4.0]), [10, 20, 30]
    )  # voxel (1, 1, 1) is (12, 23, 34) RAS
    layer = layer_of(a_scan(affine))
    assert tuple(layer.data_to_world((1, 1, 1))) == (-34, -23, -12)
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert layer.axis_labels == ("z", "y", "x")


def test_values_are_shown_in_hounsfield_units_and_stored_as_before():
    scan = a_scan(slope=0.5, intercept=-24.0)
    layer = layer_of(scan)
    assert np.array_equal(np.asarray(layer.data), scan.values().T)
    back = scan_of(layer)
    assert (back.slope, back.intercept) == (0.5, -24.0)
    assert np.array_equal(back.voxels, scan.voxels)


def test_changed_values_are_honoured_and_no_longer_bear_the_file_s_hash():
    scan = a_scan(slope=0.5, intercept=-24.0)
    layer = layer_of(scan)
    layer.data = np.asarray(layer.data) + 10
    back = scan_of(layer)
    assert np.array_equal(back.voxels, scan.voxels + 20)
    assert back.voxels.dtype == scan.voxels.dtype
    assert back.sha256 != scan.sha256


def test_a_cropped_layer_is_a_smaller_scan():
    layer = layer_of(a_scan())
    layer.data = np.asarray(layer.data)[:, 1:, :]
    assert scan_of(layer).voxels.shape == (4, 4, 6)


def test_a_scan_in_a_layer_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="read-only"):
        layer_of(a_scan()).data[0, 0, 0] = 1


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ({"translate": (1, 2, 3)}, [[1, 0, 0, 3], [0, 2, 0, 4], [0, 0, 3, 3], [0, 0, 0, 1]]),
        ({"scale": (2, 1, 1)}, [[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 6, 0], [0, 0, 0, 1]]),
        ({"affine": np.eye(4)}, [[-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]]),
        ({"rotate": [[1, 0, 0], [0, 0, -1], [0, 1, 0]]}, None),
        ({"shear": (0.1, 0, 0)}, None),
    ],
)
def test_what_the_user_changes_of_the_geometry_is_honoured(edit, expected):
    layer = layer_of(a_scan())
    (field, value), *_ = edit.items()
    setattr(layer, field, value)
    affine = scan_of(layer).affine
    if expected is not None:
        assert np.allclose(affine, expected)
    corner = np.array([3, 2, 1])  # (x, y, z)
    assert np.allclose(
        nib.affines.apply_affine(affine, corner), -np.array(layer.data_to_world(corner[::-1]))[::-1]
    )


def test_micrometres_of_another_reader_become_millimetres():
    layer = Image(np.zeros((2, 3, 4), np.int16), scale=(3000, 2000, 1000), units="um")
    scan = scan_of(layer)
    assert scan.spacing_mm == (1, 2, 3)
    assert not any("millim" in warning for warning in scan.warnings)


def test_a_layer_without_units_is_taken_for_millimetres_and_says_so():
    scan = scan_of(Image(np.full((2, 3, 4), -1000, np.int16), scale=(3, 2, 1)))
    assert scan.modality == "CT"
    assert any("1 mm" in warning for warning in scan.warnings)


@pytest.mark.parametrize(
    ("layer", "complaint"),
    [
        (Image(np.zeros((2, 3, 4, 5)), name="series"), "'series' has 4 dimensions"),
        (Image(np.zeros((4, 5, 6, 3), np.uint8), rgb=True, name="photo"), "'photo' is a colour image"),
        (Image(np.full((4, 5, 6), np.nan), name="empty"), r"'empty': 120 of 120 voxels .* NaN"),
        (Image(np.ones((4, 5, 6)), scale=(1e-4, 1, 1), units="mm", name="cells"), "Check the file's units"),
        (
            Image([np.zeros((8, 8, 8)), np.zeros((4, 4, 4))], multiscale=True, name="pyramid"),
            "'pyramid' holds several resolutions",
        ),
    ],
)
def test_what_is_no_scan_is_refused_by_name(layer, complaint):
    with pytest.raises(InputError, match=complaint):
        scan_of(layer)


def test_tilts_too_small_to_see_are_drawn_straight_and_kept():
    tilted = oblique((1.0, 1.0, 1.0), (1e-6, 0, 0))
    layer = layer_of(a_scan(tilted))
    assert np.count_nonzero(layer.affine.affine_matrix[:3, :3]) == 3
    assert np.array_equal(scan_of(layer).affine, tilted)


def test_grids_are_shared_by_place_and_not_by_shape():
    scan, moved = a_scan(), a_scan(oblique())
    assert share_grid(layer_of(scan), Layer.create(*labels_layer(scan, "seg")))
    assert not share_grid(layer_of(scan), layer_of(moved))


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64, np.int32])
def test_a_layer_saved_and_reopened_is_the_same_layer(tmp_path, dtype):
    scan = a_scan(oblique(), dtype)
    first = image_layer(scan, "CT")
    layer = Layer.create(*first)
    write_nifti(str(tmp_path / "scan.nii.gz"), *layer.as_layer_data_tuple()[:2])
    data, state, kind = image_layer(read_volume(tmp_path / "scan.nii.gz"), "CT")
    assert kind == "image"
    assert data.dtype == dtype
    assert np.array_equal(data, first[0])
    assert np.allclose(state["affine"], first[1]["affine"], atol=1e-4)  # NIfTI keeps affines in 32 bits
    assert state["metadata"]["meduet"]["scan"].modality == "CT"


def test_the_synthetic_mark_and_the_header_codes_survive_save_and_reopen(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_shape((4, 5, 6))
    header.set_xyzt_units("mm")
    header.set_sform(oblique(), code=4)
    header.set_qform(oblique(), code=2)
    recipe = {"synthetic": True, "kind": "translated", "seed": 7}
    scan = a_scan(header.get_best_affine(), header=header, synthetic=recipe)
    for trip in range(3):
        layer = layer_of(scan)
        assert layer.metadata["meduet"]["synthetic"] is True
        write_nifti(str(tmp_path / f"{trip}.nii.gz"), *layer.as_layer_data_tuple()[:2])
        scan = read_volume(tmp_path / f"{trip}.nii.gz")
    assert scan.synthetic == recipe
    assert (int(scan.header["sform_code"]), int(scan.header["qform_code"])) == (4, 2)


def test_eight_voxel_orders_of_one_scan_are_one_object(shared_data):
    viewer = ViewerModel()
    for order in ORDERS:
        viewer.add_layer(layer_of(read_volume(shared_data / "orientations" / f"{order}.nii.gz"), order))
    reference = viewer.layers["RAS"]
    corners = np.array(reference.extent.world)
    points = corners[0] + (corners[1] - corners[0]) * np.random.default_rng(0).uniform(0.05, 0.95, (500, 3))
    seen = {layer.name: [_value_at(layer, point) for point in points] for layer in viewer.layers}
    for layer in viewer.layers:
        assert np.allclose(layer.extent.world, corners, atol=1e-3)
        assert seen[layer.name] == seen["RAS"]
    assert len(set(seen["RAS"])) > 50


def _value_at(layer: Layer, point: np.ndarray) -> int:
    return int(layer.data[tuple(np.rint(layer.world_to_data(point)).astype(int))])


def test_a_crop_lies_exactly_on_the_scan_it_was_cut_from():
    whole = a_scan(oblique())
    cut = replace(
        whole,
        voxels=whole.voxels[1:, 2:, 3:],
        affine=whole.affine @ nib.affines.from_matvec(np.eye(3), [1, 2, 3]),
    )
    assert np.allclose(
        layer_of(whole).data_to_world((3 + 1, 2 + 1, 1 + 1)),
        layer_of(cut).data_to_world((1, 1, 1)),
        atol=1e-9,
    )


def test_ct_opens_in_the_soft_tissue_window_and_mr_between_its_percentiles():
    assert layer_of(a_scan()).contrast_limits == [-160, 240]
    values = np.linspace(0, 1000, 4 * 5 * 6).reshape(4, 5, 6).astype(np.float32)
    mr = layer_of(a_scan(voxels=values, modality="MR", unit="arbitrary"))
    assert np.allclose(mr.contrast_limits, [10, 995], atol=0.1)


@pytest.mark.parametrize("order", ORDERS)
def test_labels_painted_on_a_scan_come_back_in_the_stored_order_of_the_scan(order, tmp_path):
    scan = a_scan(in_order(order))
    layer = layer_of(scan)
    painted = Layer.create(*empty_labels(layer, "painted"))
    painted.data[np.asarray(layer.data) == scan.voxels[1, 2, 3]] = 7
    expected = np.zeros(scan.voxels.shape, np.uint8)
    expected[1, 2, 3] = 7
    assert np.array_equal(labels_on(painted, layer), expected)

    (saved,) = write_nifti(str(tmp_path / "painted.nii.gz"), *painted.as_layer_data_tuple()[:2])
    back = read_volume(saved, modality="MR")
    assert np.array_equal(back.voxels, expected)
    assert np.allclose(back.affine, scan.affine, atol=1e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_a_moved_layer_keeps_its_stored_order(order):
    scan = a_scan(in_order(order))
    layer = layer_of(scan)
    layer.affine = nib.affines.from_matvec(np.eye(3), [-3.0, 0.0, 0.0]) @ layer.affine.affine_matrix
    back = scan_of(layer)
    assert np.array_equal(back.voxels, scan.voxels)
    expected = scan.affine.copy()
    expected[2, 3] += 3.0  # the first world axis of a layer points towards inferior
    assert np.allclose(back.affine, expected)
