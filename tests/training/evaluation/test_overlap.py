"""Dice of structures: by hand, and said to be absent where the truth holds none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from meduet_training.evaluation.metrics.masks import dice
from meduet_training.evaluation.metrics.overlap import class_masks, overlap

SPACING = (1.0, 2.0, 5.0)  # a voxel is 10 mm³


def test_dice_and_volumes_by_hand():
    truth, found = np.zeros((4, 4, 4), bool), np.zeros((4, 4, 4), bool)
    truth[:2, :2, :2] = True  # 8 voxels
    found[:2, :2, 1:4] = True  # 12 voxels, 4 of them right
    measured = overlap(found, truth, SPACING)
    assert measured.dice == pytest.approx(2 * 4 / 20)
    assert (measured.truth_ml, measured.predicted_ml) == pytest.approx((0.08, 0.12))


def test_what_the_truth_does_not_hold_has_no_dice():
    truth, found = np.zeros((4, 4, 4), bool), np.zeros((4, 4, 4), bool)
    assert overlap(found, truth, SPACING).dice is None
    found[0, 0, 0] = True
    measured = overlap(found, truth, SPACING)
    assert (measured.dice, measured.truth_ml, measured.predicted_ml) == (None, 0.0, pytest.approx(0.01))
    assert overlap(truth, found, SPACING).dice == 0.0


labels = arrays(np.uint8, (5, 4, 3), elements=st.integers(0, 4))


@given(found=labels, truth=labels)
def test_masks_that_were_cut_have_the_dice_of_whole_ones(found, truth):
    """Label 4 is no class of these and counts nowhere."""
    pairs = list(class_masks(found, truth, num_classes=4))
    assert len(pairs) == 3
    for number, (one, other) in enumerate(pairs, start=1):
        assert dice(one, other) == dice(found == number, truth == number)
        assert (one.sum(), other.sum()) == ((found == number).sum(), (truth == number).sum())


def test_masks_are_cut_to_what_they_hold():
    found, truth = np.zeros((2, 50, 40, 30), np.uint8)
    found[3:5, 7:9, 2:4] = 1
    truth[4:9, 7:8, 2:3] = 1
    ((one, other),) = class_masks(found, truth, num_classes=2)
    assert one.shape == other.shape == (6, 2, 2)
