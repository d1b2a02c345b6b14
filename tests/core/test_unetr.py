"""Latent UNETR: shapes, sizes of the paper, the encoder's weights, and decoding without seams."""

import pytest
import torch
from torch import nn

from napari_meduet.core.analysis.encoder_sizes import sizes_of
from napari_meduet.core.analysis.heads import LightHead
from napari_meduet.core.analysis.unetr import LatentUNETR, UNETRConfig, inflated
from napari_meduet.core.meduet import Encoder, MeDUETConfig
from napari_meduet.core.patches import patchify

NARROW = {"grid": (2, 2, 2), "width": 12, "depth": 4, "heads": 2, "features": 8, "head": "light"}


def narrow(num_classes: int = 3, **changes) -> LatentUNETR:
    torch.manual_seed(0)
    config = UNETRConfig(num_classes=num_classes, **NARROW | changes)
    network = LatentUNETR(config, LightHead(config.features, num_classes))
    for parameter in network.parameters():  # blocks start as the identity, which would hide their effect
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


def test_every_voxel_of_a_window_gets_a_score_for_every_class():
    assert narrow()(torch.randn(2, 4, 8, 8, 8)).shape == (2, 3, 32, 32, 32)


@pytest.mark.parametrize(("depth", "taps"), [(12, (3, 6, 9, 12)), (4, (1, 2, 3, 4)), (8, (2, 4, 6, 8))])
def test_the_encoder_is_tapped_after_each_quarter_of_its_blocks(depth, taps):
    assert UNETRConfig(num_classes=2, depth=depth).taps == taps


def test_at_the_papers_size_it_is_a_vit_b_with_a_light_decoder():
    with torch.device("meta"):
        network = LatentUNETR(UNETRConfig(num_classes=14, head="light"), LightHead(64, 14))
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    encoder = sum(parameter.numel() for parameter in network.encoder.parameters()) / 1e6
    assert encoder == pytest.approx(85.3, abs=0.1)  # ViT-B without a head, patches of 4 x 4^3 values
    assert encoder < millions < 1.15 * encoder


def test_every_tap_and_the_latent_reach_the_scores():
    network = narrow()
    network(torch.randn(1, 4, 8, 8, 8)).sum().backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad.any()}
    for part in ("deep", "middle", "shallow.0", "shallow.1", "latent_conv", "encoder.patch_embedding"):
        assert f"{part}.weight" in reached


def test_a_pretrained_encoder_loads_by_name():
    meduet = MeDUETConfig.tiny(grid=(2, 2, 2))
    config = UNETRConfig(num_classes=2, **sizes_of(meduet))
    network = LatentUNETR(config, LightHead(config.features, 2))
    assert network.encoder.load_state_dict(Encoder(meduet).state_dict()).missing_keys == []


def test_the_head_decodes_part_by_part_what_it_decodes_at_once():
    head = narrow().head
    features = torch.randn(1, 8, 6, 4, 12)
    whole = head(features)
    first, second = head(features[..., : 6 + head.halo]), head(features[..., 6 - head.halo :])
    parts = torch.cat([first[..., :24], second[..., 4 * head.halo :]], dim=-1)
    torch.testing.assert_close(parts, whole)


def test_another_window_is_refused():
    with pytest.raises(ValueError, match="windows"):
        narrow().features(torch.randn(1, 4, 8, 8, 12))


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"num_classes": 1}, "background"), ({"depth": 3}, "each tap"), ({"patch_size": 2}, "must be 4")],
)
def test_sizes_that_cannot_work_are_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        UNETRConfig(**{"num_classes": 2} | changes)


def test_copies_of_one_scan_embed_as_that_scan_did():
    weight = torch.randn(5, 4 * 8)
    latent = torch.randn(1, 4, 4, 4, 4)
    alone = patchify(latent, 2) @ weight.T
    thrice = patchify(latent.repeat(1, 3, 1, 1, 1), 2) @ inflated(weight, channels=4, modalities=3).T
    torch.testing.assert_close(thrice, alone)


def test_each_modality_has_its_own_place_in_an_inflated_embedding():
    weight = torch.tensor([[1.0, 2.0]])  # one voxel of two channels
    assert inflated(weight, channels=2, modalities=2).tolist() == [[0.5, 1.0, 0.5, 1.0]]
