import math

import torch

from napari_meduet.core.disentanglement import (
    DomainClassifier,
    ReverseGradient,
    domain_cross_entropy,
    domain_loss,
)


def test_an_undecided_classifier_of_four_domains_scores_log_four():
    loss = domain_cross_entropy(torch.zeros(3, 4), torch.tensor([0, 1, 3]))
    assert torch.isclose(loss, torch.tensor(math.log(4)))


def test_unlabelled_volumes_are_left_out():
    logits = torch.tensor([[0.0, 0.0], [50.0, -50.0]])
    assert torch.isclose(domain_cross_entropy(logits, torch.tensor([1, -1])), torch.tensor(math.log(2)))


def test_without_a_labelled_volume_the_loss_and_its_gradient_are_zero():
    logits = torch.randn(3, 2, requires_grad=True)
    loss = domain_cross_entropy(logits, torch.tensor([-1, -1, -1]))
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros(3, 2))


def test_c09_both_volumes_are_averaged_and_summed_only_in_the_papers_text():
    terms = [torch.tensor(value) for value in (1.0, 2.0, 3.0, 4.0)]
    assert domain_loss(*terms, reduction="mean") == 5
    assert domain_loss(*terms, reduction="sum") == 10


def test_the_reversed_gradient_is_the_gradient_with_its_sign_changed():
    features = torch.tensor([1.0, -2.0], requires_grad=True)
    reversed_features = ReverseGradient.apply(features)
    assert torch.equal(reversed_features, features)
    (reversed_features * torch.tensor([3.0, 5.0])).sum().backward()
    assert features.grad.tolist() == [-3.0, -5.0]


def test_the_papers_classifiers_have_three_layers_twice_as_wide():
    sizes = [tuple(weight.shape) for weight in DomainClassifier(192, 10).parameters() if weight.ndim == 2]
    assert sizes == [(384, 192), (384, 384), (10, 384)]
