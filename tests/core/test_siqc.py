import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_meduet.core.siqc import (
    LARGEST_LOG_SCALE,
    compared_styles,
    compared_views,
    pair_log_probability,
    pooled_view,
    positive_pairs,
    supervised_contrast,
    swap_contrast,
    swap_styles,
    view_labels,
    view_similarity,
)

# One pair: volumes 0 and 1 of domains 7 and 8. The views are 0, 1, the swap 01 and the swap 10.
PAIR = view_labels(torch.tensor([7, 8]), torch.tensor([1, 0]))


def rows(mask: torch.Tensor) -> list[list[int]]:
    return mask.int().tolist()


def test_labels_of_a_pair_and_its_swaps():
    assert PAIR.content.tolist() == [0, 1, 0, 1]
    assert PAIR.style.tolist() == [0, 1, 1, 0]
    assert PAIR.style_domain.tolist() == [7, 8, 8, 7]
    assert PAIR.quadruplet.tolist() == [0, 0, 0, 0]


def test_labels_of_another_process_never_meet_ours():
    theirs = view_labels(torch.tensor([-1, 8]), torch.tensor([1, 0]), rank=3)
    assert theirs.view.tolist() == [12, 13, 14, 15]
    assert theirs.content.tolist() == [6, 7, 6, 7]
    assert theirs.style.tolist() == [6, 7, 7, 6]
    assert theirs.style_domain.tolist() == [-7, 8, 8, -7]


def test_each_unlabelled_volume_is_a_domain_of_its_own():
    labels = view_labels(torch.tensor([-1, -1]), torch.tensor([1, 0]))
    assert labels.style_domain.tolist() == [-1, -2, -2, -1]


def test_c05_a_swap_joins_content_and_style_of_the_same_position():
    content = torch.tensor([[[10.0], [11.0]], [[20.0], [21.0]]])
    style = torch.tensor([[[0.1], [0.2]], [[0.3], [0.4]]])
    swapped_content, swapped_style = swap_styles(content, style, torch.tensor([1, 0]))
    assert torch.equal(swapped_content, content)
    assert torch.equal(swapped_style, torch.tensor([[[0.3], [0.4]], [[0.1], [0.2]]]))


def test_c05_the_swap_ji_is_the_partners_row_of_the_swap_ij():
    content, style, partner = torch.randn(4, 5, 3), torch.randn(4, 5, 2), torch.tensor([2, 3, 0, 1])
    ij = torch.cat(swap_styles(content, style, partner), dim=-1)
    ji = torch.cat([content[partner], style], dim=-1)
    assert torch.equal(ij[partner], ji)


def test_a_pooled_view_by_hand():
    # Layer norm makes (0, 2) into (-1, 1) and (4, 0) into (1, -1); twice the first and once the second give
    # (-1, 1) / 3, of length 1 along (-1, 1).
    tokens = torch.tensor([[[0.0, 2.0], [0.0, 2.0], [4.0, 0.0]]])
    expected = torch.tensor([[-1.0, 1.0]]) / math.sqrt(2)
    assert torch.allclose(pooled_view(tokens), expected, atol=1e-5)


@given(st.floats(0.1, 10), st.floats(-5, 5))
def test_a_pooled_view_has_length_one_whatever_the_tokens_scale(scale, offset):
    tokens = torch.randn(2, 6, 8)
    pooled = pooled_view(tokens)
    assert torch.allclose(pooled.norm(dim=1), torch.ones(2))
    assert torch.allclose(pooled, pooled_view(tokens * scale + offset), atol=1e-2)


def test_a_view_is_never_compared_with_itself():
    everyone = torch.eye(4)
    compared = compared_views(PAIR, PAIR, "batch")
    similarity = view_similarity(everyone, everyone, torch.tensor(0.0), compared)
    assert torch.equal(similarity.diagonal(), torch.full((4,), -torch.inf))
    assert torch.equal(similarity[~torch.eye(4, dtype=torch.bool)], torch.zeros(12))


def test_similarity_by_hand():
    queries, keys = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    compared = torch.tensor([[True, True]])
    assert torch.allclose(
        view_similarity(queries, keys, torch.tensor(math.log(10)), compared), torch.tensor([[6.0, 0.0]])
    )


def test_no_gradient_flows_into_the_keys():
    queries, keys = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    view_similarity(queries, keys, torch.tensor(0.0), torch.ones(4, 4, dtype=torch.bool)).sum().backward()
    assert keys.grad is None
    assert queries.grad is not None


def test_c23_the_scale_learns_and_is_at_most_one_hundred():
    log_scale = torch.tensor(10.0, requires_grad=True)
    one = torch.ones(1, 1)
    compared = torch.ones(1, 1, dtype=torch.bool)
    assert torch.isclose(view_similarity(one, one, log_scale, compared), torch.tensor([[100.0]])).all()
    below = torch.tensor(LARGEST_LOG_SCALE - 1, requires_grad=True)
    view_similarity(one, one, below, compared).sum().backward()
    assert torch.isclose(below.grad, torch.tensor(100 / math.e))


def test_half_precision_does_not_blur_the_similarity():
    queries, keys = torch.nn.functional.normalize(torch.randn(2, 6, 32), dim=-1)
    compared = torch.ones(6, 6, dtype=torch.bool)
    exact = view_similarity(queries, keys, torch.tensor(LARGEST_LOG_SCALE), compared)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(view_similarity(queries, keys, torch.tensor(LARGEST_LOG_SCALE), compared), exact)


def test_each_view_has_one_positive_for_content_and_one_for_style():
    compared = compared_views(PAIR, PAIR, "batch")
    assert rows(positive_pairs(PAIR.content, PAIR.content, compared)) == [
        [0, 0, 1, 0],  # 0 and 01
        [0, 0, 0, 1],  # 1 and 10
        [1, 0, 0, 0],
        [0, 1, 0, 0],
    ]
    assert rows(positive_pairs(PAIR.style, PAIR.style, compared)) == [
        [0, 0, 0, 1],  # 0 and 10
        [0, 0, 1, 0],  # 1 and 01
        [0, 1, 0, 0],
        [1, 0, 0, 0],
    ]


def test_four_indifferent_views_score_log_three():
    compared = compared_views(PAIR, PAIR, "quadruplet")
    indifferent = torch.zeros(4, 4).masked_fill(~compared, -torch.inf)
    loss = supervised_contrast(indifferent, positive_pairs(PAIR.content, PAIR.content, compared))
    assert torch.isclose(loss, torch.tensor(math.log(3)))


def test_the_log_probability_of_a_pair_by_hand():
    similarity = torch.tensor([[math.log(2), 0.0, 0.0, -torch.inf]])  # the last view is not compared
    expected = torch.tensor([[1 / 2, 1 / 4, 1 / 4, 0.0]])
    assert torch.allclose(pair_log_probability(similarity).exp(), expected)


def test_contrast_by_hand():
    # One query, three keys at log-probabilities log(1/2), log(1/4), log(1/4); positives are the first two.
    similarity = torch.tensor([[math.log(2), 0.0, 0.0]])
    positive = torch.tensor([[True, True, False]])
    expected = (math.log(2) + math.log(4)) / 2
    assert torch.isclose(supervised_contrast(similarity, positive), torch.tensor(expected))


def test_views_that_find_their_positive_score_nothing_and_give_finite_gradients():
    similarity = torch.full((4, 4), -200.0)
    compared = compared_views(PAIR, PAIR, "batch")
    positive = positive_pairs(PAIR.style, PAIR.style, compared)
    similarity = similarity.masked_fill(positive, 200.0).requires_grad_()
    loss = supervised_contrast(similarity.masked_fill(~compared, -torch.inf), positive)
    loss.backward()
    assert loss == 0
    assert similarity.grad.isfinite().all()


def test_quadruplets_keep_to_themselves_and_the_batch_does_not():
    labels = view_labels(torch.tensor([0, 1, 2, 3]), torch.tensor([1, 0, 3, 2]))
    quadruplet = compared_views(labels, labels, "quadruplet")
    assert quadruplet.sum(dim=1).tolist() == [3] * 8
    assert compared_views(labels, labels, "batch").sum(dim=1).tolist() == [7] * 8
    assert not quadruplet[0, 2]  # volume 2 belongs to the other pair


def test_c20_two_scans_of_one_domain_are_not_each_others_style_negatives():
    labels = view_labels(torch.tensor([7, 7, 8, 8]), torch.tensor([2, 3, 0, 1]))  # pairs 0-2, 1-3
    compared = compared_views(labels, labels, "batch")
    assert torch.equal(compared_styles(labels, labels, compared, "all"), compared)
    kept = compared_styles(labels, labels, compared, "exclude_same_domain")
    # The views are 0 1 2 3 02 13 20 31; the styles of 0 and 1 are both of domain 7. View 0 must separate
    # its own style in the swap 20 from those of 2 and 3 in the views 2, 3, 02 and 13; 1 and 31 are left out.
    assert rows(kept)[0] == [0, 0, 1, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("negatives", ["all", "exclude_same_domain"])
@given(domains=st.lists(st.integers(-1, 2), min_size=2, max_size=6))
def test_no_choice_of_negatives_loses_a_positive(negatives, domains):
    domain = torch.tensor(domains + domains)
    partner = torch.arange(len(domain)).flip(0)
    labels = view_labels(domain, partner)
    compared = compared_views(labels, labels, "quadruplet")
    kept = compared_styles(labels, labels, compared, negatives)
    assert positive_pairs(labels.style, labels.style, kept).sum(dim=1).tolist() == [1] * (2 * len(domain))


def test_both_factors_count_the_same():
    assert swap_contrast(torch.tensor(2.0), torch.tensor(3.0)) == 5
