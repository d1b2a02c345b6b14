import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_meduet.core.demixing import draw_mask, draw_pairs, mix, reconstruction_loss
from napari_meduet.core.patches import patchify

GENERATOR = torch.Generator().manual_seed(0)
EVERY_PAIRING = pytest.mark.parametrize("pairing", ["flip", "random", "cross_domain"])


def masks(num_volumes: int) -> torch.Tensor:
    return torch.stack([draw_mask(216, 0.5, GENERATOR) for _ in range(num_volumes)])


@EVERY_PAIRING
@given(st.lists(st.integers(-1, 3), min_size=1, max_size=8))
def test_pairs_are_mutual_and_nobody_is_alone(pairing, domains):
    domain = torch.tensor(domains + domains)
    partner = draw_pairs(domain, pairing, GENERATOR)
    everyone = torch.arange(len(domain))
    assert torch.equal(partner[partner], everyone)
    assert not (partner == everyone).any()


@pytest.mark.parametrize("domains", [[0, 0, 1, 1], [0, 1, 2, 0, 1, 0], [-1, -1, -1, -1], [5, -1, 5, -1]])
def test_cross_domain_pairs_never_share_a_domain(domains):
    domain = torch.tensor(domains)
    for _ in range(20):
        partner = draw_pairs(domain, "cross_domain", GENERATOR)
        assert not ((domain == domain[partner]) & (domain >= 0)).any()


def test_flipped_pairs_mirror_the_batch():
    assert draw_pairs(torch.tensor([0, 0, 1, 1]), "flip", GENERATOR).tolist() == [3, 2, 1, 0]


@EVERY_PAIRING
def test_an_odd_batch_has_no_pairs(pairing):
    with pytest.raises(ValueError, match="even number; got 3"):
        draw_pairs(torch.tensor([0, 1, 2]), pairing, GENERATOR)


def test_half_of_each_volumes_tokens_come_from_its_partner_at_places_of_its_own():
    mask = masks(8)
    assert mask.sum(dim=1).tolist() == [108] * 8
    assert len({tuple(row.tolist()) for row in mask}) == 8


def test_under_the_mask_the_partners_patches_appear():
    latent_i, latent_j = torch.randn(2, 2, 4, 24, 24, 24)
    mask = masks(2)
    mixture = patchify(mix(latent_i, latent_j, mask, (6, 6, 6)), 4)
    assert torch.equal(mixture[mask == 1], patchify(latent_j, 4)[mask == 1])
    assert torch.equal(mixture[mask == 0], patchify(latent_i, 4)[mask == 0])


def test_reconstruction_by_hand():
    latent = torch.zeros(1, 1, 1, 1, 2)
    recovered_i = torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 1, 2)  # mean square (1 + 9) / 2 = 5
    recovered_j = torch.tensor([1.0, 1.0]).reshape(1, 1, 1, 1, 2)  # mean square 1
    assert reconstruction_loss(recovered_i, recovered_j, latent, latent) == 3.0
    assert reconstruction_loss(recovered_i, recovered_j, latent, latent, "sum") == 6.0  # as printed


def test_c01_whoever_only_copies_visible_tokens_pays_for_every_hidden_one():
    # Volume i is 2 everywhere, volume j 4. Copies are right where visible and 0 where hidden, half of each.
    latent_i, latent_j = torch.full((3, 4, 24, 24, 24), 2.0), torch.full((3, 4, 24, 24, 24), 4.0)
    nothing = torch.zeros_like(latent_i)
    mask = masks(3)
    copy_i = mix(latent_i, nothing, mask, (6, 6, 6))
    copy_j = mix(nothing, latent_j, mask, (6, 6, 6))
    # (2^2 / 2 + 4^2 / 2) / 2 = 5. Under another row's mask a quarter of the tokens would count as recovered.
    assert reconstruction_loss(copy_i, copy_j, latent_i, latent_j) == 5.0
