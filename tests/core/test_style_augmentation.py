"""Style augmentation: Eq. 27, Table 12, and the choice of styles."""

import pytest
import torch

from napari_meduet.core.analysis.style_augmentation import (
    ALL,
    HALF,
    ONE_SHOT,
    TENTH,
    StyleAugmentation,
    StyleBank,
    augmented_latent,
)
from napari_meduet.core.meduet import MeDUET, MeDUETConfig


def small_meduet() -> MeDUET:
    torch.manual_seed(0)
    sizes = {"grid": (2, 2, 2), "width": 12, "depth": 1, "heads": 2, "content_width": 12, "style_width": 6}
    decoder = {"decoder_width": 12, "decoder_depth": 1, "decoder_heads": 2, "num_domains": 2}
    return MeDUET(MeDUETConfig(**sizes, **decoder)).eval()


def test_at_strength_0_the_latent_comes_back_bit_for_bit():
    meduet, latent = small_meduet(), torch.randn(2, 4, 8, 8, 8)
    assert torch.equal(augmented_latent(meduet, latent, torch.randn(2, 6), torch.zeros(2)), latent)


def test_its_own_style_changes_nothing():
    meduet, latent = small_meduet(), torch.randn(2, 4, 8, 8, 8)
    own = meduet.encode(latent)[1].mean(dim=1)
    torch.testing.assert_close(augmented_latent(meduet, latent, own, torch.ones(2)), latent)


def test_the_latent_moves_by_the_difference_of_two_decodings():
    meduet, latent = small_meduet(), torch.randn(1, 4, 8, 8, 8)
    prototype, strength = torch.randn(1, 6), torch.tensor([0.5])
    content, style = meduet.encode(latent)
    halfway = style + 0.5 * (prototype - style.mean(dim=1)).unsqueeze(1)
    expected = latent + meduet.decode(content, halfway) - meduet.decode(content, style)
    torch.testing.assert_close(augmented_latent(meduet, latent, prototype, strength), expected.detach())


def test_no_gradient_flows_into_the_network_that_lends_the_style():
    meduet = small_meduet()
    moved = augmented_latent(meduet, torch.randn(1, 4, 8, 8, 8), torch.randn(1, 6), torch.ones(1))
    assert not moved.requires_grad


@pytest.mark.parametrize(
    ("labelled", "share", "preset"),
    [(1, 0.05, ONE_SHOT), (1, 1.0, ONE_SHOT), (2, 1.0, ONE_SHOT), (3, 0.1, TENTH), (12, 0.5, HALF),
     (20, 0.8, HALF), (24, 1.0, ALL)],
)  # fmt: skip
def test_table_12_is_chosen_by_the_number_of_labels(labelled, share, preset):
    assert StyleAugmentation.for_labels(labelled, share) == preset


def test_table_12_says_what_it_says():
    assert [each.probability for each in (ONE_SHOT, TENTH, HALF, ALL)] == [0.9, 0.8, 0.6, 0.3]
    assert [each.strengths for each in (ONE_SHOT, TENTH, HALF, ALL)] == [
        (0.4, 0.8), (0.4, 0.8), (0.3, 0.6), (0.2, 0.5),
    ]  # fmt: skip
    assert {(each.weight, each.consistency) for each in (ONE_SHOT, TENTH, HALF, ALL)} == {(0.4, 0.3)}


def test_a_crop_is_shown_in_styles_of_its_own_modality_each_as_likely():
    styles = torch.arange(5.0).unsqueeze(1)
    bank = StyleBank(styles, torch.tensor([0, 1, 0, 1, 0]))
    draws = torch.tensor([0.0, 0.34, 0.99, 0.0, 0.5, 0.99])
    modality = torch.tensor([0, 0, 0, 1, 1, 1])
    assert bank.drawn(modality, draws).flatten().tolist() == [0, 2, 4, 1, 3, 3]


@pytest.mark.parametrize(
    "wrong", [{"probability": 1.2}, {"strengths": (0.8, 0.4)}, {"strengths": (0.5, 1.5)}, {"weight": -1.0}]
)
def test_an_augmentation_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=r"between|negative"):
        StyleAugmentation(**wrong)
