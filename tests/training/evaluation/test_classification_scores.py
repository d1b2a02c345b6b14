"""AUC and balanced accuracy of whole scans, on numbers small enough to check by hand."""

import numpy as np
import pytest

from meduet_training.evaluation.metrics.classification_scores import classification_scores, mean_auc


def one_sided(first: list[float]) -> np.ndarray:
    return np.stack([np.array(first), 1 - np.array(first)], axis=1)


def test_auc_is_the_share_of_pairs_in_order():
    """Of the four pairs of a scan of class 0 and one of class 1, three are in order."""
    assert mean_auc(one_sided([0.9, 0.4, 0.6, 0.1]), np.array([0, 0, 1, 1])) == pytest.approx(3 / 4)


def test_auc_of_several_classes_is_their_mean():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]])
    truth = np.array([0, 1, 2, 2])
    # 0: 0.8 is above all. 1: 0.8 is above all. 2: 0.3 and 0.7 are above 0.1 and 0.1.
    assert mean_auc(probabilities, truth) == 1.0
    probabilities[2] = [0.3, 0.65, 0.05]  # now below both: two of four pairs of class 2
    assert mean_auc(probabilities, truth) == pytest.approx((1 + 1 + 0.5) / 3)


def test_a_class_that_is_not_there_does_not_count():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.2, 0.7]])
    assert mean_auc(probabilities, np.array([0, 1])) == 1.0
    assert np.isnan(mean_auc(probabilities, np.array([1, 1])))


def test_scores_say_who_is_taken_for_whom():
    probabilities = one_sided([0.9, 0.8, 0.4, 0.2])
    scores = classification_scores(probabilities, np.array([0, 0, 0, 1]), list("abcd"), seed=0)
    assert scores.confusion.tolist() == [[2, 1], [0, 1]]
    assert scores.accuracy.value == pytest.approx((2 / 3 + 1) / 2)
    assert scores.auc.value == 1.0
    assert scores.majority == 0.75
    assert (scores.auc.num_samples, scores.auc.num_patients) == (4, 4)


def test_draws_of_one_class_are_left_out_of_the_interval():
    """A third of all draws holds one class only; an interval must come out all the same."""
    probabilities = one_sided([0.9, 0.3, 0.6, 0.1])
    auc = classification_scores(probabilities, np.array([0, 0, 1, 1]), list("abcd"), seed=0).auc
    assert (auc.low, auc.value, auc.high) == (0.0, 0.75, 1.0)


def test_one_class_cannot_be_judged():
    with pytest.raises(ValueError, match="two or more classes"):
        classification_scores(one_sided([0.9, 0.8]), np.array([0, 0]), list("ab"), seed=0)
