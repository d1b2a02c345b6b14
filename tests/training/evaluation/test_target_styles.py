"""Styles that are asked for, the probe that recognises them, and what changed between two samples."""

import numpy as np
import pytest
import torch

from meduet_training.evaluation.metrics.anatomy_overlap import anatomy_overlap
from meduet_training.evaluation.metrics.pyramid_features import pyramid_features
from meduet_training.evaluation.synthesis.counterfactuals import changes
from meduet_training.evaluation.synthesis.real_crops import RealCrops
from meduet_training.evaluation.synthesis.target_styles import DomainProbe, draw_target_styles
from napari_meduet.errors import InputError


def crops(domains, modalities):
    count = len(domains)
    return RealCrops(
        voxels=torch.zeros(count, 2, 2, 2),
        latent=torch.zeros(count, 1, 1, 1, 1),
        content=torch.zeros(count, 3),
        style=torch.zeros(count, 2),
        spatial_content=torch.zeros(count, 1, 3),
        domains=np.array(domains),
        patients=np.arange(count).astype(str),
        modalities=np.array(modalities),
    )


def test_a_wish_is_another_domain_of_the_same_modality_and_region():
    domains = ["ct-a", "ct-b", "mr-brain-t1", "mr-brain-t2", "mr-leg-x", "ct-a"]
    found = crops(domains, ["CT", "CT", "MR", "MR", "MR", "CT"])
    target_styles = draw_target_styles(found, 0)
    assert target_styles.content.tolist() == [0, 1, 2, 3, 5]  # the leg has no other domain of legs
    pairs = [
        (domains[content], domains[style])
        for content, style in zip(target_styles.content, target_styles.style, strict=True)
    ]
    assert pairs == [
        ("ct-a", "ct-b"), ("ct-b", "ct-a"), ("mr-brain-t1", "mr-brain-t2"), ("mr-brain-t2", "mr-brain-t1"),
        ("ct-a", "ct-b"),
    ]  # fmt: skip


def test_without_another_domain_there_is_nothing_to_ask_for():
    with pytest.raises(InputError, match="no style can be changed"):
        draw_target_styles(crops(["ct-a", "mr-brain-t1"], ["CT", "MR"]), 0)


def test_the_probe_tells_noise_from_smoothness_wherever_it_lies():
    generator = torch.Generator().manual_seed(0)

    def image(noise):
        place = torch.rand(3, generator=generator) * 16
        grid = torch.stack(torch.meshgrid(*[torch.arange(32.0)] * 3, indexing="ij"), dim=-1)
        ball = ((grid - 8 - place).norm(dim=-1) < 8).float() * 0.6
        return ball + noise * torch.randn(32, 32, 32, generator=generator)

    domains = np.array(["smooth", "noisy"] * 12)
    features = torch.stack([pyramid_features(image(0.0 if name == "smooth" else 0.05)) for name in domains])
    probe = DomainProbe.fit(features[:16].numpy(), domains[:16])
    assert (probe.predict(features[16:].numpy()) == domains[16:]).all()
    assert (probe.chance, probe.fractions) == (0.5, {"smooth": 0.5, "noisy": 0.5})
    with pytest.raises(InputError, match="two domains"):
        DomainProbe.fit(features[::2].numpy(), domains[::2])


def test_overlap_of_anatomy_is_1_for_itself_and_half_for_half():
    units = torch.zeros(48, 48, 48)
    units[12:36, 12:36, 12:36] = 0.5  # soft tissue of CT
    assert anatomy_overlap(units, units, "CT") == {"body": 1.0}
    shifted = units.roll(12, dims=0)  # half of the body lies beside itself
    assert anatomy_overlap(units, shifted, "CT")["body"] == pytest.approx(0.5, abs=0.03)


def test_changes_are_told_by_place():
    rng = np.random.default_rng(0)
    one = rng.random((16, 16, 16)).astype(np.float32)
    body = np.zeros(one.shape, bool)
    body[:8] = True
    inside, outside, borders = changes(one, np.where(body, one + 0.1, one), body)
    assert inside == pytest.approx(0.1, abs=1e-6)
    assert outside == 0.0
    assert borders > 0.9
    assert np.isnan(changes(one, one, np.zeros_like(body))[0])
