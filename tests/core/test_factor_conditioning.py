import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_meduet.core.synthesis.conditioning import (
    FactorCondition,
    dropped_factor,
    initial_log_temperature,
    normalised_factor,
)

NONE, ALL = torch.tensor([False]), torch.tensor([True])


def test_norm_by_hand():
    found = normalised_factor(torch.tensor([3.0, 4.0]), torch.tensor(math.log(0.5)))
    assert torch.allclose(found, torch.tensor([1.2, 1.6]))  # (3, 4) / 5 / 0.5


def test_nothing_stays_nothing():
    assert normalised_factor(torch.zeros(1, 3), torch.tensor(0.0)).tolist() == [[0.0, 0.0, 0.0]]


@given(st.floats(0.1, 1000))
def test_only_the_direction_of_a_factor_counts(length):
    factor = torch.tensor([[1.0, -2.0, 2.0]])
    of_one, of_other = (normalised_factor(v, torch.tensor(0.0)) for v in (factor, length * factor))
    assert torch.allclose(of_one, of_other, atol=1e-5)


@pytest.mark.parametrize("width", [4, 768])
def test_the_temperature_begins_so_that_an_entry_is_about_one(width):
    assert math.isclose(math.exp(initial_log_temperature(width)), width**-0.5)
    condition = FactorCondition(width)(torch.randn(1, width), NONE)
    assert torch.isclose(condition.square().mean(), torch.tensor(1.0), atol=1e-4)


def test_rows_are_dropped_one_by_one():
    factor, null = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([9.0, 8.0])
    dropped = dropped_factor(factor, null, torch.tensor([False, True]))
    assert dropped.tolist() == [[1.0, 2.0], [9.0, 8.0]]


def test_the_null_passes_the_norm_of_the_factors():
    condition = FactorCondition(3)
    factor = torch.randn(1, 3)
    expected = normalised_factor(condition.null.unsqueeze(0), condition.log_temperature)
    assert torch.equal(condition(factor, ALL), expected)


def test_null_and_temperature_are_learnt():
    condition = FactorCondition(3)
    condition(torch.randn(2, 3), torch.tensor([True, False])).square().sum().backward()
    assert condition.log_temperature.grad.abs() > 0
    condition.zero_grad()
    condition(torch.randn(1, 3), ALL)[0, 0].backward()
    assert condition.null.grad.abs().sum() > 0
