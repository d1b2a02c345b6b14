"""Turned latents: what the tokenizer would have written of the turned volume."""

import pytest
import torch

from meduet_training.data.augmentation.flips import (
    TURNS,
    draw_turns,
    fit_channel_maps,
    turned_latent,
    turned_places,
)
from napari_meduet.tokenizers.wavelet import WaveletConfig, WaveletTokenizer

MEAN_AND_GRADIENTS = [0, 1, 2, 4]  # rows of the Haar transform: a flip changes the sign of one gradient


@pytest.fixture(scope="module")
def gradients():
    """A tokenizer whose channels are the mean of a cube and its gradients along z, y and x."""
    tokenizer = WaveletTokenizer(WaveletConfig(width=8, encoder_blocks=1, decoder_blocks=1)).eval()
    for layer in (tokenizer.linear_code, tokenizer.squeeze):
        layer.weight.data.zero_()
        layer.bias.data.zero_()
    for channel, row in enumerate(MEAN_AND_GRADIENTS):
        tokenizer.linear_code.weight.data[channel, row] = 1.0
    return tokenizer


@pytest.fixture(scope="module")
def maps(gradients):
    return fit_channel_maps(gradients)


@pytest.mark.parametrize(
    "turns", [[name] for name in TURNS] + [["flip x", "flip z", "quarter turn", "quarter turn"]]
)
@torch.inference_mode()
def test_a_turned_latent_is_the_latent_of_the_turned_volume(gradients, maps, turns):
    volume = torch.rand(1, 1, 16, 16, 8, generator=torch.Generator().manual_seed(0))
    expected = gradients.encode(turned_places(volume, turns))[0][0]
    latent = gradients.encode(volume)[0][0]
    assert (turned_latent(latent, turns, maps) - expected).abs().max() < 1e-4
    assert (turned_places(latent, turns) - expected).abs().max() > 0.1  # places alone are not enough


def test_without_turns_the_latent_is_untouched(maps):
    latent = torch.randn(4, 8, 8, 8)
    assert turned_latent(latent, [], maps) is latent


def test_the_maps_of_a_tokenizer_are_always_the_same(gradients, maps):
    again = fit_channel_maps(gradients)
    for name, expected in maps.items():
        assert torch.tensor(again[name]) == pytest.approx(torch.tensor(expected), abs=1e-4)


def test_each_turn_is_drawn_one_time_in_five():
    generator = torch.Generator().manual_seed(0)
    draws = [draw_turns(generator) for _ in range(4000)]
    for name in TURNS:
        assert sum(name in turns for turns in draws) / 4000 == pytest.approx(0.2, abs=0.02)
    quarters = [turns.count("quarter turn") for turns in draws]
    assert {1, 2, 3} == set(quarters) - {0}
    assert sum(not turns for turns in draws) / 4000 == pytest.approx(0.8**4, abs=0.03)
