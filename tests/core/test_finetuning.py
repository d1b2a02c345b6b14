"""Fine-tuning with few labels: Eqs. 28-30 by hand, partial labels, and which weights change."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_style_augmentation import small_meduet
from test_unetr import narrow

from napari_meduet.core.analysis.classifier import ClassifierConfig, ScanClassifier
from napari_meduet.core.analysis.finetuning import (
    IGNORED,
    ClassificationObjective,
    FinetuningConfig,
    SegmentationObjective,
    augmented_task_loss,
    block_scores,
    finetuning_loss,
    known_log_probabilities,
    segmentation_loss,
    soft_dice,
    style_consistency,
)
from napari_meduet.core.analysis.style_augmentation import ONE_SHOT, StyleAugmentation, StyleBank

ALL_ANNOTATED = torch.ones(1, 3, dtype=torch.bool)


def test_the_loss_in_another_style_is_weighed():
    assert augmented_task_loss(torch.tensor(0.0), torch.tensor(2.0), 0.4) == pytest.approx(0.8)
    assert augmented_task_loss(torch.tensor(1.0), torch.tensor(2.0), 0.4) == pytest.approx(1.8)


def test_predictions_that_agree_lose_nothing():
    scores = torch.randn(2, 3, 4, 4, 4)
    assert style_consistency(scores, scores + 7.0) == pytest.approx(0.0, abs=1e-6)  # a constant is no change


def test_the_divergence_of_two_coins():
    # KL((1/2, 1/2) || (3/4, 1/4)) = ln 2 - ln(3) / 2 ... = 1/2 ln(2/3) + 1/2 ln 2
    fair, bent = torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]])
    assert style_consistency(fair, bent) == pytest.approx(0.5 * math.log(4 / 3))


def test_only_the_augmented_prediction_learns_to_agree():
    augmented, original = (torch.randn(1, 3, 2, requires_grad=True) for _ in range(2))
    style_consistency(augmented, original).backward()
    assert augmented.grad.any()
    assert original.grad is None


def test_the_three_losses_are_added():
    task = augmented_task_loss(torch.tensor(1.0), torch.tensor(2.0), 1.0)
    assert finetuning_loss(task, torch.tensor(10.0), 0.3) == 6.0


def test_the_background_stands_for_what_nobody_looked_for():
    scores = torch.zeros(1, 4, 1)  # four classes, each 1/4
    annotated = torch.tensor([[True, True, False, False]])
    log_p = known_log_probabilities(scores, annotated)
    assert log_p[0, 0].exp() == pytest.approx(0.75)
    assert log_p[0, 1].exp() == pytest.approx(0.25)


def test_a_class_nobody_looked_for_may_be_predicted_in_the_background():
    target = torch.zeros(1, 2, 2, 2, dtype=torch.uint8)
    sure = torch.zeros(1, 3, 2, 2, 2)
    sure[:, 2] = 20.0
    partly = torch.tensor([[True, True, False]])
    assert segmentation_loss(sure, target, partly) < 1e-6
    assert segmentation_loss(sure, target, ALL_ANNOTATED) > 10


def test_soft_dice_of_a_half_sure_mask():
    # 2 * (1/2 + 1/2) / (1/2 + 1/2 + 2)
    assert soft_dice(torch.tensor([0.5, 0.5, 0.0]), torch.tensor([True, True, False])) == pytest.approx(2 / 3)


def test_indifferent_scores_lose_ln_3_and_what_dice_says():
    target = torch.zeros(1, 2, 1, 1, dtype=torch.uint8)
    target[0, 0] = 1  # one voxel of class 1, one of background; class 2 is absent
    loss = segmentation_loss(torch.zeros(1, 3, 2, 1, 1), target, ALL_ANNOTATED)
    dice = 2 * (1 / 3) / (2 / 3 + 1)
    assert loss == pytest.approx(math.log(3) + 1 - dice)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_voxels_where_nobody_looked_change_nothing(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(1, 3, 4, 4, 4, generator=generator)
    target = torch.randint(0, 3, (1, 4, 4, 4), generator=generator).to(torch.uint8)
    target[..., 2:] = IGNORED
    other = scores.clone()
    other[..., 2:] = torch.randn(1, 3, 4, 4, 2, generator=generator)
    expected = segmentation_loss(scores, target, ALL_ANNOTATED)
    torch.testing.assert_close(segmentation_loss(other, target, ALL_ANNOTATED), expected)


def test_a_crop_nobody_looked_at_loses_nothing():
    target = torch.full((1, 2, 2, 2), IGNORED, dtype=torch.uint8)
    assert segmentation_loss(torch.randn(1, 3, 2, 2, 2), target, ALL_ANNOTATED) == 0.0


def bank() -> StyleBank:
    return StyleBank(torch.randn(2, 6), torch.tensor([0, 0]))


def batch(**changes) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "latent": torch.randn(2, 4, 8, 8, 8),
        "target": torch.randint(0, 3, (2, 16, 16, 16)).to(torch.uint8),
        "block": torch.tensor([[0, 0, 0], [4, 2, 1]]),
        "annotated": torch.ones(2, 3, dtype=torch.bool),
        "coverage": torch.ones(2, 8),
        "label": torch.tensor([0, 1]),
        "modality": torch.tensor([0, 0]),
        "augments": torch.tensor([True, False]),
        "style_draw": torch.rand(2),
        "strength": torch.tensor([0.5, 0.5]),
    } | changes


def segmentation(augmentation: StyleAugmentation | None = ONE_SHOT) -> SegmentationObjective:
    config = FinetuningConfig(total_steps=10, augmentation=augmentation, ema_decay=0.5)
    torch.manual_seed(0)
    return SegmentationObjective(config, narrow(), small_meduet(), bank())


def test_the_total_is_what_its_parts_say():
    losses = segmentation()(batch(), 0)
    total = losses["task"] + 0.4 * losses["augmented"] + 0.3 * losses["consistency"]
    torch.testing.assert_close(losses["total"].detach(), total)
    assert losses["augmented"] > 0


def test_a_block_scores_as_it_does_in_its_window():
    network, latent = narrow(), torch.randn(2, 4, 8, 8, 8)
    blocks = block_scores(network, network.features(latent), torch.tensor([[2, 3, 1], [1, 1, 4]]), (3, 4, 3))
    whole = network(latent)
    torch.testing.assert_close(blocks[0], whole[0, :, 8:20, 12:28, 4:16])
    torch.testing.assert_close(blocks[1], whole[1, :, 4:16, 4:20, 16:28])


def test_where_no_row_is_augmented_the_task_is_all():
    losses = segmentation()(batch(augments=torch.tensor([False, False])), 0)
    torch.testing.assert_close(losses["total"], losses["task"])


def test_without_augmentation_no_meduet_is_needed():
    objective = SegmentationObjective(FinetuningConfig(total_steps=10), narrow())
    assert set(objective(batch(), 0)) == {"total", "task"}
    with pytest.raises(ValueError, match="needs a MeDUET"):
        SegmentationObjective(FinetuningConfig(augmentation=ONE_SHOT), narrow())


def test_the_average_follows_and_the_meduet_stands_still():
    objective = segmentation()
    objective(batch(), 0)["total"].backward()
    with torch.no_grad():
        for parameter in objective.student.parameters():
            parameter += 1.0
    before = objective.teacher.norm.weight.clone()
    objective.finish_step(0)
    torch.testing.assert_close(
        objective.teacher.norm.weight, torch.lerp(objective.student.norm.weight, before, 0.1)
    )
    assert all(parameter.grad is None for parameter in objective.meduet.parameters())
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())


def test_a_few_steps_learn_a_crop():
    objective = segmentation()
    optimizer = torch.optim.AdamW(objective.student.parameters(), lr=1e-2)
    halves = torch.zeros(2, 16, 16, 16, dtype=torch.uint8)
    halves[:, 8:] = 1
    losses = []
    for step in range(12):
        loss = objective(batch(target=halves), step)["total"]
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.9 * losses[0]


def test_a_classifier_learns_in_the_same_way():
    config = ClassifierConfig(num_classes=2, grid=(2, 2, 2), width=12, depth=1, heads=2)
    objective = ClassificationObjective(
        FinetuningConfig(total_steps=10, augmentation=ONE_SHOT),
        ScanClassifier(config),
        small_meduet(),
        bank(),
    )
    losses = objective(batch(), 0)
    losses["total"].backward()
    assert set(losses) == {"total", "task", "augmented", "consistency"}
    assert objective.student.scores.weight.grad.any()


def test_draws_keep_to_the_range_of_the_preset():
    config = FinetuningConfig(augmentation=StyleAugmentation(probability=0.5, strengths=(0.3, 0.6)))
    generator = torch.Generator().manual_seed(0)
    rows = [config.draw(None, generator) for _ in range(400)]
    assert all(0.3 <= float(row["strength"]) <= 0.6 for row in rows)
    assert 0.4 < sum(bool(row["augments"]) for row in rows) / len(rows) < 0.6
    never = FinetuningConfig()
    assert not any(bool(never.draw(None, generator)["augments"]) for _ in range(20))
