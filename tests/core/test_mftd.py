import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_meduet.core.mftd import factor_distillation, mixed_factor_distillation, token_distance


def test_distance_by_hand():
    student = torch.tensor([[[1.0, 3.0], [2.0, 2.0]]])
    teacher = torch.tensor([[[0.0, 0.0], [2.0, 0.0]]])
    assert token_distance(student, teacher).tolist() == [[5.0, 2.0]]  # (1 + 9) / 2, (0 + 4) / 2


def test_no_gradient_flows_into_the_teacher():
    student, teacher = (torch.randn(1, 3, 4, requires_grad=True) for _ in range(2))
    token_distance(student, teacher).sum().backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_only_hidden_tokens_count():
    far, near = torch.tensor([[8.0, 8.0]]), torch.tensor([[0.0, 0.0]])
    assert factor_distillation(far, near, mask=torch.tensor([[1.0, 0.0]])) == 4.0


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_swapping_the_volumes_and_the_mask_changes_nothing(hidden):
    mask = torch.tensor([hidden]).float()
    distance_i, distance_j = torch.rand(2, 1, len(hidden))
    forth = factor_distillation(distance_i, distance_j, mask)
    back = factor_distillation(distance_j, distance_i, 1 - mask)
    assert torch.allclose(forth, back)


def test_c16_the_default_scale_is_twice_equation_5_and_content_is_held_at_half():
    content, style = torch.tensor(4.0), torch.tensor(3.0)
    assert mixed_factor_distillation(content, style, content_weight=0.5, scale=1.0) == 5.0
    assert mixed_factor_distillation(content, style, content_weight=0.5, scale=2.0) == 10.0


def test_c16_at_half_mixing_the_default_is_one_mean_per_volume():
    mask = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    distance_i, distance_j = torch.tensor([[1.0, 9, 3, 9]]), torch.tensor([[9.0, 4, 9, 6]])
    # Hidden of i: 1 and 3, mean 2. Hidden of j: 4 and 6, mean 5.
    assert 2 * factor_distillation(distance_i, distance_j, mask) == 2 + 5
