"""NSD and HD95 on boxes whose surfaces can be worked out on paper."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meduet_training.evaluation.metrics.surface_distance import surface_agreement


def box(corner: tuple[int, int, int], size: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros((40, 40, 40), bool)
    mask[tuple(slice(start, start + side) for start, side in zip(corner, size, strict=True))] = True
    return mask


TRUTH = box((5, 5, 5), (10, 10, 10))


def test_a_structure_agrees_with_itself():
    same = surface_agreement(TRUTH, TRUTH, (0.8, 1.0, 3.0), tolerance_mm=0.0)
    assert (same.nsd, same.hd95_mm) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("corner", "moved_mm"), [((8, 5, 5), 3.0), ((5, 7, 5), 4.0), ((5, 5, 6), 3.0), ((5, 5, 7), 6.0)]
)
def test_distances_are_millimetres_along_each_axis(corner, moved_mm):
    """Voxels of 1 x 2 x 3 mm. A box that moved lies within its way, and its faces are exactly so far off."""
    moved = box(corner, (10, 10, 10))
    within = surface_agreement(moved, TRUTH, (1.0, 2.0, 3.0), tolerance_mm=moved_mm)
    assert within.nsd == pytest.approx(1.0)
    assert within.hd95_mm == pytest.approx(moved_mm)
    assert surface_agreement(moved, TRUTH, (1.0, 2.0, 3.0), tolerance_mm=moved_mm - 0.1).nsd < 0.9


def test_surfaces_count_by_their_area():
    """Slices of 10 mm, one too many: of 4200 + 4600 mm² the end (100) and half the sides of that slice are
    out. Counting voxels of the border, 100 of 488 + 524 would be."""
    longer = box((5, 5, 5), (10, 10, 11))
    found = surface_agreement(longer, TRUTH, (1.0, 1.0, 10.0), tolerance_mm=3.0)
    assert found.nsd == pytest.approx(1 - (100 + 400 / 2) / (4200 + 4600), abs=0.01)


def test_a_part_that_is_missing_counts_on_both_surfaces():
    """Half a box of 20 x 10 x 10 mm: of 1000 + 600 mm², 500 of the whole and the cut (100) are out."""
    whole = box((5, 5, 5), (20, 10, 10))
    found = surface_agreement(TRUTH, whole, (1.0, 1.0, 1.0), tolerance_mm=0.5)
    assert found.nsd == pytest.approx(1 - (500 + 100) / (1000 + 600), abs=0.04)
    assert found.hd95_mm == pytest.approx(10.0)


def test_a_speck_far_away_does_not_move_hd95():
    found = TRUTH | box((39, 39, 39), (1, 1, 1))
    measured = surface_agreement(found, TRUTH, (1.0, 1.0, 1.0))
    assert measured.hd95_mm == 0.0
    assert 0.99 < measured.nsd < 1.0


def test_nothing_found_agrees_nowhere():
    missed = surface_agreement(np.zeros_like(TRUTH), TRUTH, (1.0, 1.0, 1.0))
    assert (missed.nsd, missed.hd95_mm) == (0.0, None)


def test_a_slice_of_3_mm_by_rounding_is_within_3_mm():
    higher = box((5, 5, 6), (10, 10, 10))
    assert surface_agreement(higher, TRUTH, (1.0, 1.0, 3.0000002), tolerance_mm=3.0).nsd == 1.0


def test_a_structure_may_reach_the_end_of_the_scan():
    whole = np.ones((6, 6, 6), bool)
    assert surface_agreement(whole, whole, (1.0, 1.0, 1.0)).nsd == 1.0


@settings(max_examples=20)
@given(
    corner=st.tuples(*[st.integers(0, 12)] * 3),
    size=st.tuples(*[st.integers(2, 12)] * 3),
    order=st.permutations(range(3)),
)
def test_neither_the_order_of_the_masks_nor_of_the_axes_matters(corner, size, order):
    other, spacing = box(corner, size), (0.7, 1.0, 3.0)
    plain = surface_agreement(other, TRUTH, spacing)
    turned = surface_agreement(
        TRUTH.transpose(order), other.transpose(order), tuple(spacing[axis] for axis in order)
    )
    assert turned.nsd == pytest.approx(plain.nsd, abs=1e-5)
    assert turned.hd95_mm == pytest.approx(plain.hd95_mm, abs=1e-4)
