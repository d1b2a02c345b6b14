"""Laws of the working grid: exact positions, one object in every voxel order, and a way back."""

from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_meduet.errors import InputError
from napari_meduet.volumes.files import read_volume
from napari_meduet.volumes.intensity import CT_FULL, CT_WIDE, fit_mr_profile
from napari_meduet.volumes.preparation import WORKING_SPACING_MM, WorkingGrid, prepare
from napari_meduet.volumes.volume import Volume


def scan(voxels: np.ndarray, affine: np.ndarray) -> Volume:
    return Volume(voxels=voxels, affine=affine, modality="CT", unit="HU", sha256="")


def oblique(spacing: tuple[float, float, float], angles: tuple[float, float, float]) -> np.ndarray:
    """An affine turned by Euler angles."""
    x, y, z = angles
    turn_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    turn_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    turn_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn_z @ turn_y @ turn_x * spacing
    affine[:3, 3] = 11, -22, 33
    return affine


def positions(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """(*shape, 3) RAS mm of every voxel."""
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return indices @ affine[:3, :3].T + affine[:3, 3]


spacings = st.tuples(*[st.floats(0.4, 6.0)] * 3)
angles = st.tuples(*[st.floats(-3.1, 3.1)] * 3)
shapes = st.tuples(*[st.integers(2, 14)] * 3)
gradients = st.tuples(*[st.floats(-3, 3)] * 3)


@settings(max_examples=100, deadline=None)
@given(shape=shapes, spacing=spacings, angle=angles, gradient=gradients)
def test_a_linear_function_of_position_is_reproduced(shape, spacing, angle, gradient):
    """There: exact wherever the working voxel lies within the scan. Back: exact at every native voxel."""
    affine = oblique(spacing, angle)
    volume = scan(np.zeros(shape, np.int16), affine)
    grid = WorkingGrid.for_volume(volume)
    native = (positions(shape, affine) @ gradient).astype(np.float32)
    working = (positions(grid.shape, grid.affine) @ gradient).astype(np.float32)

    indices = positions(grid.shape, np.linalg.inv(affine) @ grid.affine)  # in native voxels
    within = ((indices >= -1e-6) & (indices <= np.array(shape) - 1 + 1e-6)).all(axis=-1)
    tolerance = 1e-4 * max(1.0, np.abs(native).max())
    np.testing.assert_allclose(grid.to_working(native)[within], working[within], atol=tolerance)
    np.testing.assert_allclose(grid.to_native(working), native, atol=tolerance)


@settings(max_examples=60, deadline=None)
@given(shape=shapes, spacing=spacings, angle=angles)
def test_the_working_grid_encloses_the_scan(shape, spacing, angle):
    """Isotropic, RAS-ordered, no native voxel beyond its outermost centres, less than a step too large."""
    affine = oblique(spacing, angle)
    grid = WorkingGrid.for_volume(scan(np.zeros(shape, np.int16), affine))
    np.testing.assert_allclose(np.linalg.norm(grid.affine[:3, :3], axis=0), WORKING_SPACING_MM, rtol=1e-6)
    indices = positions(shape, np.linalg.inv(grid.affine) @ affine)
    assert indices.min() > -1e-3
    assert (indices <= np.array(grid.shape) - 1 + 1e-3).all()
    assert (indices.reshape(-1, 3).min(axis=0) < 0.5 + 1e-3).all()
    axis_of = np.abs(grid.affine[:3, :3]).argmax(axis=0)
    if sorted(axis_of) == [0, 1, 2]:  # else the scan lies diagonally and has no closest order
        np.testing.assert_array_equal(axis_of, [0, 1, 2])
        assert (np.diag(grid.affine)[:3] > 0).all()


def test_every_voxel_order_is_one_object():
    """All 48 permutations and flips of an anisotropic scan give the same working array in the same place."""
    rng = np.random.default_rng(1)
    voxels = rng.integers(-1000, 1500, (9, 7, 5)).astype(np.int16)
    affine = np.array([[0.8, 0.05, 0, 3], [-0.06, 1.1, 0, -4], [0, 0, 2.5, 5], [0, 0, 0, 1]])
    expected, grid = prepare(scan(voxels, affine), CT_FULL)
    for order, flips in product(permutations(range(3)), product((False, True), repeat=3)):
        reorder = np.zeros((4, 4))  # new index -> old index
        reorder[3, 3] = 1
        for new, old in enumerate(order):
            reorder[old, new] = -1 if flips[new] else 1
            reorder[old, 3] = voxels.shape[old] - 1 if flips[new] else 0
        turned = np.flip(voxels.transpose(order), [axis for axis in range(3) if flips[axis]])
        prepared, other = prepare(scan(turned, affine @ reorder), CT_FULL)
        np.testing.assert_allclose(prepared, expected, atol=1e-6)
        np.testing.assert_allclose(other.affine, grid.affine, atol=1e-9)
        back = other.to_native(expected)
        assert back.shape == turned.shape
        np.testing.assert_allclose(
            back,
            np.flip(grid.to_native(expected).transpose(order), [a for a in range(3) if flips[a]]),
            atol=1e-6,
        )


def test_the_scan_in_eight_voxel_orders_is_one_object(shared_data: Path):
    paths = sorted((shared_data / "orientations").glob("*.nii.gz"))
    assert len(paths) == 8
    prepared = []
    for path in paths:
        volume = read_volume(path)
        prepared.append(prepare(volume, fit_mr_profile(volume.values())))
    for array, grid in prepared[1:]:
        np.testing.assert_allclose(array, prepared[0][0], atol=1e-5)
        np.testing.assert_allclose(grid.affine, prepared[0][1].affine, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(shape=shapes, seed=st.integers(0, 99))
def test_an_identity_grid_changes_nothing(shape, seed):
    voxels = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    affine = np.diag([1.5, 1.5, 1.5, 1])
    affine[:3, 3] = -7.3, 2.1, 900.7
    grid = WorkingGrid.for_volume(scan(voxels, affine))
    np.testing.assert_allclose(grid.affine, affine)
    np.testing.assert_array_equal(grid.to_working(voxels), voxels)
    np.testing.assert_array_equal(grid.to_native(voxels), voxels)


def test_two_voxels_a_step_apart():
    """0 at 0 mm and 30 at 3 mm: the working voxels at 0, 1.5 and 3 mm read 0, 15 and 30."""
    voxels = np.zeros((2, 2, 2), np.int16)
    voxels[1] = 30
    grid = WorkingGrid.for_volume(scan(voxels, np.diag([3.0, 1.5, 1.5, 1])))
    working = grid.to_working(voxels)
    np.testing.assert_array_equal(working[:, 0, 0], [0, 15, 30])
    np.testing.assert_array_equal(grid.to_native(working), voxels)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.float32, np.float64])
def test_agrees_with_an_independent_interpolator(dtype):
    """scipy's map_coordinates at the positions of the affines, edges clamped."""
    voxels = np.random.default_rng(2).integers(0, 200, (11, 13, 6)).astype(dtype)
    volume = scan(voxels, oblique((0.7, 1.9, 4.0), (0.1, -0.2, 0.3)))
    grid = WorkingGrid.for_volume(volume)
    indices = positions(grid.shape, np.linalg.inv(volume.affine) @ grid.affine)
    expected = ndimage.map_coordinates(
        voxels.astype(np.float64), np.moveaxis(indices, -1, 0), order=1, mode="nearest"
    )
    np.testing.assert_allclose(grid.to_working(voxels), expected, atol=1e-3)


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_way_back_ends_in_the_memory_order_of_a_scan(order):
    volume = scan(np.zeros((9, 8, 7), np.int16), np.diag([-0.8, 1.0, 2.0, 1]) @ np.eye(4)[[2, 1, 0, 3]])
    grid = WorkingGrid.for_volume(volume)
    working = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
    native = grid.to_native(np.asarray(working, order=order))
    assert native.flags.f_contiguous
    np.testing.assert_array_equal(native, grid.to_native(working))


def test_a_sheared_scan_keeps_its_own_axes():
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[1, 2] = 0.6  # a gantry tilt of 11 degrees
    volume = scan(np.zeros((8, 8, 8), np.int16), affine)
    grid = WorkingGrid.for_volume(volume)
    directions = grid.affine[:3, :3] / WORKING_SPACING_MM
    np.testing.assert_allclose(directions, affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))


def test_prepare_encodes_the_interpolated_values():
    voxels = np.random.default_rng(3).integers(0, 2000, (10, 9, 8)).astype(np.uint16)
    volume = replace(scan(voxels, np.diag([0.9, 1.2, 2.0, 1])), slope=2.0, intercept=-1024.0)
    prepared, grid = prepare(volume, CT_WIDE)
    np.testing.assert_allclose(prepared, CT_WIDE.encode(grid.to_working(volume.values())), atol=1e-5)
    assert prepared.dtype == np.float32
    assert prepared.min() >= 0
    assert prepared.max() <= 1


def test_an_impossible_extent_is_refused_before_it_is_allocated():
    voxels = np.broadcast_to(np.int16(0), (150, 150, 150))  # takes no memory
    with pytest.raises(InputError, match="3000 x 3000 x 3000 mm"):
        WorkingGrid.for_volume(scan(voxels, np.diag([20.0, 20, 20, 1])))


def test_an_array_of_another_grid_is_refused():
    grid = WorkingGrid.for_volume(scan(np.zeros((4, 4, 4), np.int16), np.eye(4)))
    with pytest.raises(ValueError, match="the scan's grid"):
        grid.to_working(np.zeros((4, 4, 5), np.float32))
    with pytest.raises(ValueError, match="the working grid"):
        grid.to_native(np.zeros((9, 9, 9), np.float32))


def split(scores: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """(K, X, Y, Z) cut along its last axis into slabs of these sizes, over and over."""
    bounds = np.cumsum((sizes * scores.shape[-1])[: scores.shape[-1]])
    return [slab for slab in np.split(scores, bounds, axis=-1) if slab.shape[-1]]


@settings(max_examples=100, deadline=None)
@given(
    shape=shapes,
    spacing=spacings,
    angle=angles,
    num_classes=st.integers(1, 5),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_the_class_of_a_voxel_is_that_of_its_largest_score(shape, spacing, angle, num_classes, sizes, seed):
    """On oblique, permuted and flipped grids, in slabs of any thickness; rounding may decide a tie."""
    volume = scan(np.zeros(shape, np.int16), oblique(spacing, angle))
    grid = WorkingGrid.for_volume(volume)
    scores = np.random.default_rng(seed).normal(size=(num_classes, *grid.shape)).astype(np.float32)
    labels = grid.labels_from_scores(split(scores, sizes), num_classes)
    native = np.stack([grid.to_native(each) for each in scores])
    assert (labels.shape, labels.dtype) == (shape, np.uint8)
    assert labels.flags.f_contiguous
    won = np.take_along_axis(native, labels[None].astype(int), axis=0)[0]
    np.testing.assert_allclose(won, native.max(axis=0), atol=1e-5)
    is_clear = np.ptp(np.sort(native, axis=0)[-2:], axis=0) > 1e-5
    np.testing.assert_array_equal(labels[is_clear], native.argmax(axis=0)[is_clear])


def test_classes_in_every_voxel_order_are_one_object():
    rng = np.random.default_rng(3)
    affine = np.array([[0.8, 0.05, 0, 3], [-0.06, 1.1, 0, -4], [0, 0, 2.5, 5], [0, 0, 0, 1]])
    grid = WorkingGrid.for_volume(scan(np.zeros((9, 7, 5), np.int16), affine))
    scores = rng.normal(size=(3, *grid.shape)).astype(np.float32)
    expected = grid.labels_from_scores([scores], 3)
    for order, flips in product(permutations(range(3)), product((False, True), repeat=3)):
        reorder = np.zeros((4, 4))  # new index -> old index
        reorder[3, 3] = 1
        for new, old in enumerate(order):
            reorder[old, new] = -1 if flips[new] else 1
            reorder[old, 3] = expected.shape[old] - 1 if flips[new] else 0
        turned = np.flip(expected.transpose(order), [axis for axis in range(3) if flips[axis]])
        other = WorkingGrid.for_volume(scan(np.zeros(turned.shape, np.int16), affine @ reorder))
        np.testing.assert_array_equal(other.labels_from_scores([scores], 3), turned)


def test_many_classes_need_two_bytes():
    grid = WorkingGrid.for_volume(scan(np.zeros((2, 2, 2), np.int16), np.diag([1.5, 1.5, 1.5, 1])))
    scores = np.full((300, *grid.shape), -10, np.float32)
    scores[299] = 1
    labels = grid.labels_from_scores([scores], 300)
    assert labels.dtype == np.uint16
    assert (labels == 299).all()


def test_a_class_may_win_between_voxels_where_others_do():
    """Between scores of 3, 2, -9 and of -9, 2, 3 lie -3, 2, -3."""
    grid = WorkingGrid(
        native_shape=(1, 1, 1),
        native_affine=np.diag([1.5, 1.5, 1.5, 1]),
        shape=(2, 1, 1),
        affine=np.diag([1.5, 1.5, 1.5, 1]),
        axes=(0, 1, 2),
        flips=(False, False, False),
    )  # its one voxel lies halfway between the two of the working grid
    scores = np.array([[3, -9], [2, 2], [-9, 3]], np.float32).reshape(3, 2, 1, 1)
    assert grid.labels_from_scores([scores], 3).item() == 1


def test_slabs_that_do_not_fill_the_grid_are_refused():
    grid = WorkingGrid.for_volume(scan(np.zeros((3, 3, 3), np.int16), np.diag([1.5, 1.5, 1.5, 1])))
    with pytest.raises(ValueError, match="end before"):
        grid.labels_from_scores([np.zeros((2, 3, 3, 2), np.float32)], 2)
    with pytest.raises(ValueError, match="planes should be"):
        grid.labels_from_scores([np.zeros((2, 3, 4, 3), np.float32)], 2)
