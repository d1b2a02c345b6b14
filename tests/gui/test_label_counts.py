import numpy as np
import pytest

from napari_meduet.gui.common.label_counts import LabelCount, count_labels, label_centre


def test_every_label_is_counted_and_has_the_slice_with_most_of_it():
    labels = np.zeros((3, 4, 5), np.int32)
    labels[0, 0, 0] = labels[2, 1:3, 1:4] = 7
    labels[1, 3, 3] = 2
    assert count_labels(labels) == {2: LabelCount(1, 1), 7: LabelCount(7, 2)}
    assert count_labels(np.zeros((2, 2, 2), np.uint8)) == {}


@pytest.mark.parametrize("number", [-3, 2**20, 2**40])
def test_numbers_that_fit_no_table_are_counted_too(number):
    labels = np.array([[[0, number, number]]], np.int64)
    assert count_labels(labels) == {number: LabelCount(2, 0)}


def test_the_centre_of_a_label_lies_in_it_whatever_its_shape():
    ring = np.zeros((1, 5, 5), np.uint8)
    ring[0, 1:4, 1:4] = 1
    ring[0, 2, 2] = 0
    z, y, x = label_centre(ring, 1, 0)
    assert ring[z, y, x] == 1
    assert label_centre(ring, 9, 0) is None
