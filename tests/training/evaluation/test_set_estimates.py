"""Intervals of sets: moved to the value, drawn within patients, the same for the same seed."""

import numpy as np
import pytest

from meduet_training.evaluation.metrics.set_estimates import set_estimate


def test_an_interval_lies_around_its_value_although_draws_are_biased():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, 30)
    patients = np.repeat(["a", "b", "c"], 10)

    def distinct(counts):  # copies lower it, as they raise a FID
        return float((counts > 0).sum())

    found = set_estimate(distinct, patients, 1)
    assert found.value == 30.0
    assert found.low < 30.0 < found.high
    mean = set_estimate(lambda counts: float((counts * values).sum() / counts.sum()), patients, 1)
    assert mean.low < mean.value < mean.high
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(30), rel=0.35)


def test_each_patient_gives_as_many_samples_as_it_has():
    patients = np.array(["a", "a", "a", "b"])
    share = set_estimate(lambda counts: float(counts[:3].sum()), patients, 0)
    assert (share.low, share.value, share.high) == (3.0, 3.0, 3.0)
    assert (share.num_samples, share.num_patients) == (4, 2)
