from dataclasses import replace

import pytest
import torch
from small_generator import awake, conditions, latent, minute_config, minute_generator

from napari_meduet.core.synthesis.control import ControlNet, mask_fractions
from napari_meduet.core.synthesis.control_objective import ControlObjective
from napari_meduet.core.synthesis.generator import Generator, GeneratorConfig
from napari_meduet.core.synthesis.guided import Guidance, GuidedVelocity
from napari_meduet.core.synthesis.objective import GenerationConfig

MASK = torch.rand(2, 3, 8, 8, 8, generator=torch.Generator().manual_seed(4))


def batch() -> dict[str, torch.Tensor]:
    given = conditions()
    return {
        "latent": latent(), "noise": latent(seed=2), "time": torch.tensor([0.3, 0.8]), "mask": MASK,
        "content": given.content, "style": given.style, "spatial_content": given.spatial_content,
        "drops_content": torch.tensor([False, True]), "drops_style": torch.tensor([True, False]),
        "drops_spatial": torch.tensor([False, True]),
    }  # fmt: skip


def test_the_share_of_each_class_by_hand():
    labels = torch.zeros(1, 4, 2, 2, dtype=torch.int64)
    labels[0, 0] = 2  # a quarter of the whole, half of the first latent voxel
    shares = mask_fractions(labels, num_classes=3, voxels=2)
    assert shares.shape == (1, 3, 2, 1, 1)
    assert shares[0, :, 0, 0, 0].tolist() == [0.5, 0.0, 0.5]
    assert shares[0, :, 1, 0, 0].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_named(label):
    labels = torch.full((1, 2, 2, 2), label)
    with pytest.raises(ValueError, match=rf"labels \[{label}\]; this model knows labels 0 to 2"):
        mask_fractions(labels, num_classes=3, voxels=2)


def test_a_new_controlnet_changes_nothing():
    generator, given, x = minute_generator(), conditions(), latent()
    control = ControlNet(generator, 3)
    guidance, times = Guidance(), (0.4,)
    plain = GuidedVelocity(generator, given, guidance, times)(x, 0.4)
    controlled = GuidedVelocity(generator, replace(given, mask=MASK), guidance, times, control=control)
    assert torch.equal(controlled(x, 0.4), plain)


def test_it_begins_as_a_copy_of_the_first_half_of_the_blocks_and_at_most_six():
    generator = minute_generator()
    control = ControlNet(generator, 3)
    assert len(control.joins) == len(control.transformer.blocks) == 1
    copied, own = control.transformer.blocks[0].state_dict(), generator.transformer.blocks[0].state_dict()
    assert all(torch.equal(copied[name], tensor) for name, tensor in own.items())
    with torch.device("meta"):
        paper = ControlNet(Generator(GeneratorConfig.base()), 20)
    assert len(paper.joins) == 6
    assert paper.mask_embedding.weight.shape == (768, 20 * 64)


def test_once_trained_the_mask_of_a_row_moves_its_prediction_alone():
    generator, given, x = minute_generator(), conditions(), latent()
    control = awake(ControlNet(generator, 3))
    found = []
    for mask in (MASK, torch.cat([MASK[:1], 1 - MASK[1:]])):
        guided = GuidedVelocity(generator, replace(given, mask=mask), Guidance(), (0.4,), control=control)
        found.append(guided(x, 0.4))
    assert torch.equal(found[0][0], found[1][0])
    assert not torch.allclose(found[0][1], found[1][1])


def test_control_in_one_batch_is_control_one_by_one():
    generator, given = minute_generator(), replace(conditions(), mask=MASK)
    control = awake(ControlNet(generator, 3))
    one, each = (
        GuidedVelocity(generator, given, Guidance(), (0.4,), control=control, batched=batched)(latent(), 0.4)
        for batched in (True, False)
    )
    assert torch.allclose(one, each, atol=1e-5)


def test_control_without_a_mask_is_refused():
    generator = minute_generator()
    with pytest.raises(ValueError, match="these conditions have none"):
        GuidedVelocity(generator, conditions(), Guidance(), (0.4,), control=ControlNet(generator, 3))


@pytest.mark.parametrize("prediction", ["velocity", "data", "noise"])
def test_training_moves_the_controlnet_and_never_the_generator(prediction):
    torch.manual_seed(0)
    generator = awake(Generator(minute_config(prediction=prediction)))
    objective = ControlObjective(GenerationConfig(), generator, num_classes=3)
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for step in range(12):
        loss = objective(batch(), step)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.finish_step(step)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())
    assert objective.student.mask_embedding.weight.grad.any()
    assert objective.teacher.joins[0].weight.any()
    assert not any(parameter.requires_grad for parameter in objective.teacher.parameters())


def test_every_parameter_of_a_controlnet_gets_a_gradient():
    generator = minute_generator()
    objective = ControlObjective(GenerationConfig(), generator, num_classes=3)
    awake(objective.student)
    objective(batch(), 0)["total"].backward()
    assert all(parameter.grad is not None for parameter in objective.student.parameters())
