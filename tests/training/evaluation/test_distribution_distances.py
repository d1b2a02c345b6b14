"""FID and MMD: equal sets, normal distributions with a known distance, few samples of many features."""

import numpy as np
import pytest

from meduet_training.evaluation.metrics.distribution_distances import (
    frechet_distance,
    median_distance,
    rbf_kernel,
    unbiased_mmd,
)


def normal(count, width, seed, mean=0.0, std=1.0):
    return np.random.default_rng(seed).normal(mean, std, (count, width))


def test_a_set_is_at_no_distance_from_itself():
    features = normal(20, 5, 0)
    assert frechet_distance(features, features) == pytest.approx(0.0, abs=1e-12)
    assert frechet_distance(features, features[::-1]) == pytest.approx(0.0, abs=1e-12)


def test_a_distance_small_enough_to_check_on_paper():
    one = np.array([[-1.0], [1.0]])  # mean 0, variance 2
    other = np.array([[1.0], [5.0]])  # mean 3, variance 8
    assert frechet_distance(one, other) == pytest.approx(3**2 + (np.sqrt(8) - np.sqrt(2)) ** 2)


def test_many_samples_come_near_the_closed_form_of_two_normal_distributions():
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    one = normal(100_000, 2, 1) @ np.diag([1.0, 3.0])
    other = normal(100_000, 2, 2) @ np.diag([2.0, 0.5]) @ turn.T + [1.0, -2.0]
    first, second = np.diag([1.0, 9.0]), turn @ np.diag([4.0, 0.25]) @ turn.T
    root = np.sqrt(np.linalg.eigvals(first @ second)).sum()  # trace of the root of the product
    expected = 5.0 + np.trace(first + second) - 2 * root
    assert frechet_distance(one, other) == pytest.approx(expected, rel=0.02)


def test_fewer_samples_than_features_need_no_help():
    """Two sets in planes at right angles share nothing: their distance is the sum of all variances."""
    one, other = np.zeros((4, 50)), np.zeros((3, 50))
    one[:, 0], other[:, 1] = [-1, 1, -1, 1], [-1, 0, 1]
    assert frechet_distance(one, other) == pytest.approx(4 / 3 + 1)
    few, many = normal(6, 300, 3), normal(6, 300, 4)
    assert frechet_distance(few, many) == pytest.approx(frechet_distance(many, few))
    assert frechet_distance(few, few) == pytest.approx(0.0, abs=1e-9)


def test_the_mmd_of_two_samples_each_is_what_paper_says():
    one, other = np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])
    kernels = [rbf_kernel(a, b, 1.0) for a, b in ((one, one), (other, other), (one, other))]
    within = np.exp(-0.5) + np.exp(-2.0)  # of one and of other: a single pair each
    between = (1 + np.exp(-2.0) + np.exp(-0.5) + np.exp(-0.5)) / 4
    assert unbiased_mmd(*kernels) == pytest.approx(within - 2 * between)


def test_the_mmd_of_equal_distributions_is_0_on_average_and_that_of_others_is_not():
    def mmd(seed, shift):
        one, other = normal(12, 3, seed), normal(12, 3, seed + 10_000, mean=shift)
        return unbiased_mmd(*(rbf_kernel(a, b, 2.0) for a, b in ((one, one), (other, other), (one, other))))

    equal = np.array([mmd(seed, 0.0) for seed in range(400)])
    assert (equal < 0).any()  # what is unbiased goes below
    assert abs(equal.mean()) < 3 * equal.std() / np.sqrt(len(equal))
    assert np.mean([mmd(seed, 1.0) for seed in range(20)]) > 5 * equal.std()


def test_copies_of_a_sample_are_not_compared_with_each_other():
    one, other = normal(3, 2, 0), normal(3, 2, 1)
    kernels = [rbf_kernel(a, b, 1.0) for a, b in ((one, one), (other, other), (one, other))]
    counts = np.array([2.0, 1.0, 0.0])
    expected = kernels[0][0, 1] + kernels[1][0, 1]
    weights = np.array([2.0, 1.0, 0.0]) / 3
    expected -= 2 * weights @ kernels[2] @ weights
    assert unbiased_mmd(*kernels, counts, counts) == pytest.approx(expected)


def test_the_median_distance_leaves_out_the_samples_themselves():
    assert median_distance(np.array([[0.0], [1.0], [3.0]])) == 2.0


def test_a_covariance_of_one_sample_is_refused():
    with pytest.raises(ValueError, match="two samples"):
        frechet_distance(np.zeros((1, 3)), np.zeros((4, 3)))
