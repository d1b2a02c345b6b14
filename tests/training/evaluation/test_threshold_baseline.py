"""Lungs by a threshold, on a chest whose lungs are known."""

import nibabel as nib
import numpy as np
import pytest

from meduet_training.evaluation.metrics.masks import dice
from meduet_training.evaluation.segmentation.threshold_baseline import threshold_lungs
from napari_meduet.volumes.volume import Volume

SPACING = (3.0, 3.0, 5.0)


def chest(*, is_fused: bool = False, sides: tuple[str, ...] = ("left", "right")) -> tuple[Volume, dict]:
    """A body with lungs in RAS order: gas in its bowel, a vessel in each lung, air around it."""
    x, y, z = np.meshgrid(*(np.arange(side) * mm for side, mm in zip((110, 80, 50), SPACING, strict=True)),
                          indexing="ij")  # fmt: skip
    values = np.where(((x - 165) / 150) ** 2 + ((y - 120) / 105) ** 2 < 1, 40.0, -1000.0)
    values[(abs(x - 165) < 12) & (abs(y - 150) < 12) & (z < 60)] = -900.0  # gas
    masks = {}
    for side, middle in (("right", 235), ("left", 95)):  # in RAS order x runs to the right
        lung = ((x - middle) / 48) ** 2 + ((y - 120) / 70) ** 2 + ((z - 130) / 85) ** 2 < 1
        masks[side] = lung
        if side in sides:
            values[lung & ~((abs(x - middle) < 4) & (abs(y - 120) < 4))] = -850.0
    if is_fused:  # by an airway
        values[(abs(y - 120) < 10) & (abs(z - 130) < 10) & (x > 95) & (x < 235)] = -950.0
    affine = nib.affines.from_matvec(np.diag(SPACING), (-165, -120, -125))
    return Volume(voxels=values, affine=affine, modality="CT", unit="HU", sha256="0" * 64), masks


@pytest.mark.parametrize("is_fused", [False, True])
def test_lungs_are_found_with_their_vessels_and_told_apart(is_fused):
    scan, masks = chest(is_fused=is_fused)
    found = threshold_lungs(scan)
    assert dice(found == 1, masks["left"]) > (0.95 if is_fused else 0.99)
    assert dice(found == 2, masks["right"]) > (0.95 if is_fused else 0.99)
    assert found[55, 50, 5] == 0  # gas


def test_sides_are_the_patients_whatever_the_order_of_the_voxels():
    scan, _ = chest()
    turned = nib.Nifti1Image(scan.voxels, scan.affine).as_reoriented(
        nib.orientations.axcodes2ornt("SPL")  # where each axis goes, and that two are flipped
    )
    other = Volume(
        voxels=np.asarray(turned.dataobj), affine=turned.affine, modality="CT", unit="HU", sha256="0" * 64
    )
    found = nib.Nifti1Image(threshold_lungs(other), other.affine)
    assert np.array_equal(nib.as_closest_canonical(found).dataobj, threshold_lungs(scan))


def test_a_single_lung_has_the_side_it_lies_on():
    scan, masks = chest(sides=("right",))
    found = threshold_lungs(scan)
    assert set(np.unique(found)) == {0, 2}
    assert dice(found == 2, masks["right"]) > 0.99


def test_where_there_are_no_lungs_none_are_found():
    scan, _ = chest(sides=())
    assert not threshold_lungs(scan).any()
    magnetic = Volume(
        voxels=scan.voxels + 1000, affine=scan.affine, modality="MR", unit="arbitrary", sha256="0" * 64
    )
    assert not threshold_lungs(magnetic).any()
