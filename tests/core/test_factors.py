import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_meduet.core.factors import (
    StyleStatistics,
    pooled_factor,
    scan_factors,
    style_prototype,
    style_statistics,
    updated_prototype,
)


def statistics(mean: float, std: float) -> StyleStatistics:
    return StyleStatistics(mean=torch.tensor([float(mean)]), std=torch.tensor([float(std)]))


def test_tokens_weigh_as_much_as_they_hold_and_next_to_nothing_counts_nothing():
    tokens = torch.tensor([[1.0], [4.0], [100.0]])
    coverage = torch.tensor([1.0, 0.5, 0.049])
    assert torch.isclose(pooled_factor(tokens, coverage), torch.tensor([2.0]))  # (1 + 4 / 2) / 1.5


def test_a_token_with_five_percent_of_body_is_kept():
    assert pooled_factor(torch.tensor([[7.0], [0.0]]), torch.tensor([0.05, 0.0])) == 7


def test_a_crop_of_nothing_but_air_is_averaged_whole():
    assert pooled_factor(torch.tensor([[1.0], [3.0]]), torch.zeros(2)) == 2


def test_statistics_by_hand():
    found = style_statistics(torch.tensor([[1.0], [5.0], [50.0]]), torch.tensor([1.0, 1.0, 0.0]))
    assert (found.mean, found.std) == (3, 2)


@given(st.integers(1, 3), st.integers(2, 20))
def test_full_coverage_is_the_plain_mean_and_standard_deviation(num_volumes, num_tokens):
    style = torch.randn(num_volumes, num_tokens, 5)
    found = style_statistics(style, torch.ones(num_volumes, num_tokens))
    assert torch.allclose(found.mean, style.mean(dim=1), atol=1e-5)
    assert torch.allclose(found.std, style.std(dim=1, correction=0), atol=1e-5)


def test_the_papers_sizes_give_768_and_192_numbers():
    factors = scan_factors(torch.randn(3, 216, 768), torch.randn(3, 216, 192), torch.ones(3, 216))
    assert factors.content.shape == (768,)
    assert factors.style.mean.shape == factors.style.std.shape == (192,)


def test_all_windows_of_a_scan_are_pooled_at_once():
    content, style = torch.tensor([[[2.0]], [[8.0]]]), torch.tensor([[[1.0]], [[4.0]]])
    factors = scan_factors(content, style, torch.tensor([[0.5], [1.0]]))
    assert torch.isclose(factors.content, torch.tensor(6.0))  # (1 + 8) / 1.5
    assert torch.isclose(factors.style.mean, torch.tensor(3.0))  # (0.5 + 4) / 1.5


def test_a_scan_without_a_body_is_refused_with_a_way_out():
    with pytest.raises(ValueError, match=r"at least 5% of body.*modality"):
        scan_factors(torch.randn(1, 8, 3), torch.randn(1, 8, 2), torch.full((1, 8), 0.04))


def test_a_prototype_is_the_mean_of_its_scans():
    prototype = style_prototype([statistics(1, 2), statistics(3, 6)])
    assert (prototype.mean, prototype.std) == (2, 4)


def test_the_prototype_of_one_scan_is_that_scan_to_the_last_bit():
    scan = style_statistics(torch.randn(216, 192))
    prototype = style_prototype([scan])
    assert torch.equal(prototype.mean, scan.mean)
    assert torch.equal(prototype.std, scan.std)


def test_a_prototype_needs_a_scan():
    with pytest.raises(ValueError, match=r"at least one scan"):
        style_prototype([])


def test_a_new_scan_moves_a_prototype_by_a_tenth():
    moved = updated_prototype(statistics(10, 1), statistics(20, 2))
    assert torch.isclose(moved.mean, torch.tensor(11.0))
    assert torch.isclose(moved.std, torch.tensor(1.1))
