import torch

from napari_meduet.core.alignment import aligned_swap_loss, content_agreement_loss


def test_a_swap_that_misses_its_truth_by_two_scores_four():
    truth = torch.zeros(2, 4, 4, 4, 4)
    assert aligned_swap_loss(truth + 2, truth) == 4
    assert aligned_swap_loss(truth, truth) == 0


def test_agreement_by_hand():
    # Layer norm makes (0, 2) into (-1, 1) and (5, 1) into (1, -1): squared difference 4 in both entries.
    there, here = torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[5.0, 1.0]]])
    assert torch.isclose(content_agreement_loss(here, there), torch.tensor(4.0), atol=1e-4)
    assert torch.equal(content_agreement_loss(here, there), content_agreement_loss(there, here))


def test_content_cannot_agree_by_vanishing():
    there, here = torch.randn(2, 1, 6, 8)
    assert torch.isclose(
        content_agreement_loss(here, there), content_agreement_loss(0.1 * here, 0.1 * there), rtol=1e-2
    )


def test_both_contents_learn():
    there, here = (torch.randn(1, 3, 4, requires_grad=True) for _ in range(2))
    content_agreement_loss(here, there).backward()
    assert there.grad.abs().sum() > 0
    assert here.grad.abs().sum() > 0
