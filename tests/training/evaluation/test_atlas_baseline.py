"""Classes by registration: a labelled phantom is laid over the same one, moved and larger."""

import numpy as np
import pytest

from meduet_training.evaluation.metrics.masks import dice
from meduet_training.evaluation.segmentation.atlas_baseline import Atlas, atlas_classes
from napari_meduet.core.analysis.finetuning import IGNORED
from napari_meduet.volumes.preparation import WorkingGrid
from napari_meduet.volumes.volume import Volume

SPACING = 3.0


def body(shift: tuple[float, float, float], size: float) -> tuple[np.ndarray, np.ndarray]:
    """Units and classes (1 an organ, 2 a bone) of a body that is moved (voxels) and larger."""
    places = np.indices((80, 80, 80)) - 40
    x, y, z = ((axis - step) / size for axis, step in zip(places, shift, strict=True))
    organ = (x - 10) ** 2 + y**2 + (z + 5) ** 2 < 10**2
    bone = (x + 12) ** 2 + (y + 8) ** 2 < 6**2
    inside = (x / 28) ** 2 + (y / 22) ** 2 + (z / 33) ** 2 < 1
    units = np.where(bone & inside, 1.0, np.where(organ, 0.7, np.where(inside, 0.4, 0.0)))
    classes = np.where(bone & inside, 2, np.where(organ, 1, 0))
    return units.astype(np.float32), classes.astype(np.uint8)


@pytest.fixture(scope="module")
def scene():
    """A scan with its true classes, and its grid: LPS voxels, thinner slices than the working grid's."""
    units, truth = body((5, -5, 7), 1.1)
    voxels = np.repeat(units, 2, axis=2)[::-1, ::-1]
    affine = np.diag([-SPACING, -SPACING, SPACING / 2, 1.0])
    scan = Volume(voxels=voxels, affine=affine, modality="CT", unit="HU", sha256="0" * 64)
    grid = WorkingGrid.for_volume(scan, SPACING)
    return grid.to_working(voxels), grid, np.repeat(truth, 2, axis=2)[::-1, ::-1]


def atlas(annotated=(True, True, True), **more) -> Atlas:
    units, classes = body((0, 0, 0), 1.0)
    for number, is_known in enumerate(annotated):
        classes[(classes == number) & (not is_known)] = 0
    return Atlas(values=units, classes=more.get("classes", classes), annotated=annotated)


def test_labels_follow_the_anatomy(scene):
    units, grid, truth = scene
    found = atlas_classes(units, grid, SPACING, [atlas()])
    assert found.shape == truth.shape
    assert found.dtype == np.uint8
    _, unmoved = body((0, 0, 0), 1.0)
    unmoved = np.repeat(unmoved, 2, axis=2)[::-1, ::-1]
    for number in (1, 2):
        assert dice(unmoved == number, truth == number) < 0.6
        assert dice(found == number, truth == number) > 0.8


def test_the_same_scan_gets_the_same_labels_each_time(scene):
    units, grid, _ = scene
    once, again = (atlas_classes(units, grid, SPACING, [atlas()]) for _ in range(2))
    assert np.array_equal(once, again)


def test_each_atlas_answers_for_the_classes_it_knows(scene):
    units, grid, truth = scene
    only_organ, only_bone = atlas((True, True, False)), atlas((True, False, True))
    found = atlas_classes(units, grid, SPACING, [only_organ, only_bone])
    assert min(dice(found == number, truth == number) for number in (1, 2)) > 0.8
    assert set(np.unique(atlas_classes(units, grid, SPACING, [only_organ]))) == {0, 1}


def test_where_nobody_looked_an_atlas_has_no_vote(scene):
    units, grid, truth = scene
    unknown = np.full_like(body((0, 0, 0), 1.0)[1], IGNORED)
    found = atlas_classes(units, grid, SPACING, [atlas(), atlas(classes=unknown)])
    assert dice(found == 1, truth == 1) > 0.8
